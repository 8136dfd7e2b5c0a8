//! The first process in the virtual machine of `cargo xtask test-kernels`: loads the kernel's modules, runs each test program, says how it
//! went, and turns the machine off.
//!
//! The initramfs has `/modules`, to be loaded in the order of their names, and `/tests`, to be run likewise.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where, and of what type.
const FILE_SYSTEMS: [(&str, &str); 6] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/sys/fs/bpf", "bpf"),
    ("/dev", "devtmpfs"),
    ("/tmp", "tmpfs"),
    ("/run", "tmpfs"),
];
const NO_PARAMETERS: &CStr = c"";

fn main() {
    let outcome = run();
    match &outcome {
        Ok(failed) if failed.is_empty() => println!("vm: all passed"),
        Ok(failed) => println!("vm: FAILED: {}", failed.join(", ")),
        Err(error) => println!("vm: FAILED: {error:#}"),
    }
    let _ = io::stdout().flush();
    let error = reboot(RebootMode::RB_POWER_OFF);
    println!("vm: it does not turn off: {error:?}");
}

/// Returns the test programs that failed.
fn run() -> Result<Vec<String>> {
    for (path, kind) in FILE_SYSTEMS {
        fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {path}"))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("vm: Linux {}", release.trim());
    for module in listed("/modules")? {
        let file = File::open(&module)?;
        finit_module(&file, NO_PARAMETERS, ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {}", module.display()))?;
    }
    let mut failed = Vec::new();
    for test in listed("/tests")? {
        let name = name_of(&test);
        println!("vm: {name}");
        let began = Instant::now();
        let status = Command::new(&test)
            .arg("--test-threads=1")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CI", "true")
            .env("VIP_TEST_EMULATED", "true")
            .status()
            .with_context(|| format!("cannot run {name}"))?;
        let took = began.elapsed().as_secs();
        if status.success() {
            println!("vm: ok {name} ({took} s)");
        } else {
            println!("vm: FAILED {name} ({status}, {took} s)");
            failed.push(name);
        }
    }
    Ok(failed)
}

fn listed(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {directory}"))?;
    let mut found = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
