//! `cargo xtask build-ebpf`: the kernel half, from its source to the file that the agent embeds.

use std::env;
use std::fs;
use std::process::Command;

use crate::run::{self, Failure, step};
use crate::tool;

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and puts it where the agent's build looks for it: target/ebpf/vip-ebpf.
pub fn build() -> Result<(), Failure> {
    step("build-ebpf", &mut cargo("build")?)?;
    let built = run::target()
        .join("ebpf-build")
        .join(TARGET)
        .join("release/vip-ebpf");
    let kept = run::target().join("ebpf/vip-ebpf");
    let object = fs::read(&built)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", built.display())))?;
    // An equal object keeps its age, so that the agent is not built again for it.
    if fs::read(&kept).is_ok_and(|before| before == object) {
        return Ok(());
    }
    fs::create_dir_all(run::target().join("ebpf"))
        .and_then(|()| fs::write(&kept, object))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", kept.display())))
}

/// The lints of the kernel half, on the target it is built for.
pub fn clippy() -> Result<(), Failure> {
    step(
        "clippy-ebpf",
        cargo("clippy")?.args(["--", "-D", "warnings"]),
    )
}

fn cargo(command: &str) -> Result<Command, Failure> {
    if tool::find("bpf-linker").is_none() {
        return Err(Failure::new(
            "bpf-linker is missing: run `cargo xtask setup`",
        ));
    }
    let mut cargo = run::cargo();
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(bends_the_build) {
            cargo.env_remove(name);
        }
    }
    // build-std is unstable, and the one pinned toolchain is a stable one.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    // BTF makes the maps readable to bpftool, and the kernel's verifier names source lines.
    cargo.env("RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf");
    // Empty, not absent: that also overrules a wrapper in the user's cargo configuration.
    cargo.env("RUSTC_WRAPPER", "");
    cargo.args([
        command,
        "--package",
        "vip-ebpf",
        "--release",
        "-Z",
        "build-std=core",
    ]);
    // By itself: beside the host's flags in `target`, either build would undo the other's.
    cargo
        .args(["--target", TARGET, "--target-dir"])
        .arg("target/ebpf-build");
    Ok(cargo)
}

/// Whether a variable of the caller's, meant for the host's programs, would change what is built for the kernel.
fn bends_the_build(name: &str) -> bool {
    matches!(
        name,
        "RUSTC" | "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" | "RUSTC_BOOTSTRAP"
    ) || matches!(
        name,
        "CARGO_ENCODED_RUSTFLAGS" | "CARGO_INCREMENTAL" | "CARGO_TARGET_DIR"
    ) || [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_BPFEL_",
        "CARGO_UNSTABLE_",
    ]
    .iter()
    .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_flags_do_not_leak_in() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_TARGET_DIR",
        ] {
            assert!(bends_the_build(name), "{name}");
        }
        for name in [
            "RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_PROFILE_RELEASE_LTO",
        ] {
            assert!(bends_the_build(name), "{name}");
        }
    }

    #[test]
    fn what_cargo_needs_to_work_stays() {
        for name in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "RUSTUP_TOOLCHAIN",
            "CARGO_NET_OFFLINE",
            "LD_LIBRARY_PATH",
        ] {
            assert!(!bends_the_build(name), "{name}");
        }
    }
}
