//! `cargo xtask test-kernels`: the kernel tests on stock kernels of Debian, each in a virtual machine that is
//! emulated, so that neither root nor /dev/kvm is needed. Nothing of a kernel is installed here.

mod cpio;
mod image;
mod machine;
mod modules;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::{self, Failure};
use crate::{build_ebpf, needs, setup};

/// A series of kernels, and Debian's package that depends on the newest of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernel {
    pub series: &'static str,
    package: &'static str,
}

/// The oldest that is supported, and the one that came after it in Debian.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        series: "6.1",
        package: "linux-image-cloud-amd64",
    },
    Kernel {
        series: "6.12",
        package: "linux-image-6.12-cloud-amd64",
    },
];

/// Runs the tests on all `kernels`, and fails if one failed on any.
pub fn test(kernels: &[Kernel]) -> Result<(), Failure> {
    setup::setup(&[needs::ALWAYS, needs::KERNELS])?;
    build_ebpf::build()?;
    let programs = build()?;
    let folder = run::target().join("kernels");
    fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, &error))?;
    let mut lines = Vec::new();
    let mut all_passed = true;
    for kernel in kernels {
        let began = Instant::now();
        let unpacked = package::get(kernel, &folder)?;
        let image = folder.join(format!("{}.cpio", unpacked.release));
        image::write(&image, &unpacked, &programs)?;
        let verdict = machine::boot(&unpacked.kernel, &image)?;
        let took = began.elapsed().as_secs();
        let passed = verdict == machine::PASSED;
        all_passed &= passed;
        lines.push(format!(
            "test-kernels: {} {} ({took} s): {verdict}",
            if passed { "ok    " } else { "FAILED" },
            unpacked.release,
        ));
    }
    println!("{}", lines.join("\n"));
    if all_passed {
        Ok(())
    } else {
        Err(Failure::new("test-kernels: not all passed"))
    }
}

/// What runs in the machine.
pub struct Programs {
    /// The first process.
    init: PathBuf,
    /// Name and file.
    tests: Vec<(String, PathBuf)>,
}

/// Builds the tests that concern the kernel: all whose name says so.
fn build() -> Result<Programs, Failure> {
    let folder = run::root().join("vip-agent/tests");
    let entries = fs::read_dir(&folder).map_err(|error| failed("read", &folder, &error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name.starts_with("kernel_"))
        .collect();
    names.sort();
    let mut test = run::cargo();
    test.args(["test", "--no-run", "-p", "vip-agent"]);
    for name in &names {
        test.args(["--test", name]);
    }
    let mut tests = Vec::new();
    for file in run::executables("build", &mut test)? {
        let name = name_of(&file);
        // The agent itself is built with them.
        if names.contains(&name) {
            tests.push((name, file));
        }
    }
    let mut init = run::cargo();
    init.args(["build", "-p", "vip-tests", "--bin", "vm-init"]);
    let init = run::executables("build", &mut init)?
        .pop()
        .ok_or_else(|| Failure::new("test-kernels: cargo names no vm-init"))?;
    if tests.len() != names.len() {
        return Err(Failure::new(format!(
            "test-kernels: of {} cargo names only {} programs",
            names.join(", "),
            tests.len()
        )));
    }
    Ok(Programs { init, tests })
}

/// A test program's name without the hash behind it.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-')
        .map_or(name.as_ref(), |(name, _)| name)
        .to_owned()
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!(
        "test-kernels: cannot {what} {}: {error}",
        path.display()
    ))
}
