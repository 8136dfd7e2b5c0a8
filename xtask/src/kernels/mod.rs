//! `cargo xtask test-kernels`: the kernel tests on stock kernels of Debian, each in a virtual machine that is
//! emulated, so that neither root nor /dev/kvm is needed. Nothing of a kernel is installed here.

mod cpio;
mod image;
mod machine;
mod modules;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

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

/// What of the run can be chosen.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// One, or all.
    pub kernel: Option<Kernel>,
    /// Some test programs; none: all.
    pub tests: Vec<String>,
}

impl Options {
    /// From the words after the command.
    pub fn parse(arguments: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut rest = arguments;
        while !rest.is_empty() {
            rest = match rest {
                ["--kernel", series, rest @ ..] => {
                    let kernel = KERNELS.iter().find(|kernel| kernel.series == *series);
                    options.kernel = Some(*kernel.ok_or_else(|| {
                        let all = KERNELS.iter().map(|kernel| kernel.series);
                        let all = all.collect::<Vec<_>>().join(" and ");
                        format!("`--kernel {series}`: there are {all}")
                    })?);
                    rest
                }
                ["--test", name, rest @ ..] => {
                    options.tests.push((*name).to_owned());
                    rest
                }
                _ => return Err(format!("`test-kernels` does not take `{}`", rest.join(" "))),
            };
        }
        Ok(options)
    }
}

/// Runs the tests on the kernels, and fails if one failed on any.
pub fn test(options: &Options) -> Result<(), Failure> {
    setup::setup(&[needs::ALWAYS, needs::KERNELS])?;
    build_ebpf::build()?;
    let programs = build(&options.tests)?;
    let folder = run::target().join("kernels");
    fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, &error))?;
    let mut machines = Vec::new();
    let chosen = options.kernel.as_ref().map(std::slice::from_ref);
    for kernel in chosen.unwrap_or(KERNELS) {
        let unpacked = package::get(kernel, &folder)?;
        let image = folder.join(format!("{}.cpio", unpacked.release));
        image::write(&image, &unpacked, &programs)?;
        machines.push((unpacked, image));
    }
    // At once: each is busy on one CPU most of the time.
    let verdicts = thread::scope(|scope| {
        let running: Vec<_> = machines
            .iter()
            .map(|(unpacked, image)| {
                scope.spawn(|| machine::boot(&unpacked.release, &unpacked.kernel, image))
            })
            .collect();
        let ends = running.into_iter().map(|one| {
            one.join()
                .unwrap_or_else(|_| Err(Failure::new("test-kernels: xtask itself failed")))
        });
        ends.collect::<Result<Vec<_>, _>>()
    })?;
    for ((unpacked, _), verdict) in machines.iter().zip(&verdicts) {
        println!("test-kernels: {}: {verdict}", unpacked.release);
    }
    if verdicts.iter().all(|verdict| verdict == machine::PASSED) {
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

/// Builds the tests that concern the kernel, all whose name says so, or those that are asked for.
fn build(only: &[String]) -> Result<Programs, Failure> {
    let folder = run::root().join("vip-agent/tests");
    let entries = fs::read_dir(&folder).map_err(|error| failed("read", &folder, &error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        // One of several files is a folder.
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .filter(|name| name.starts_with("kernel_"))
        .filter(|name| only.is_empty() || only.contains(name))
        .collect();
    if let Some(lacking) = only.iter().find(|name| !names.contains(name)) {
        return Err(Failure::new(format!(
            "test-kernels: there is no {}/{lacking}",
            folder.display()
        )));
    }
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
