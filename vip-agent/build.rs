//! Embeds the eBPF object that `cargo xtask build-ebpf` has made, if it has.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ebpf_object)");
    println!("cargo::rerun-if-env-changed=VIP_EBPF_OBJECT");
    let object = match env::var_os("VIP_EBPF_OBJECT") {
        // For a build that is meant to go without.
        Some(path) if path == "none" => return,
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("../target/ebpf/vip-ebpf"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let Ok(bytes) = fs::read(&object) else {
        return;
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("vip-ebpf");
    fs::write(&out, bytes).expect("OUT_DIR can be written");
    println!("cargo::rustc-cfg=ebpf_object");
}
