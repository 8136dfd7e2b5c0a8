//! `cargo xtask setup`: installs what is missing, and nothing else.

use std::path::Path;
use std::process::Command;

use crate::needs::{self, BPF_LINKER, Need, Source};
use crate::run::{self, Failure, step};
use crate::tool::{self, Root};

/// Finds what is missing of `wanted`, says so, installs it and looks again.
pub fn setup(wanted: &[&[Need]]) -> Result<(), Failure> {
    let missing = needs::missing(wanted)?;
    if missing.is_empty() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    println!("setup: about to install");
    for need in &missing {
        println!("  {}", describe(need));
    }
    // The packages come first: what cargo installs is linked with gcc.
    install_packages(&names(&missing, Source::Apt))?;
    install_components(&names(&missing, Source::Rustup))?;
    if !names(&missing, Source::Cargo).is_empty() {
        install_bpf_linker()?;
    }
    let left = needs::missing(wanted)?;
    if left.is_empty() {
        println!("setup: done");
        return Ok(());
    }
    let left: Vec<&str> = left.iter().map(|need| need.name).collect();
    Err(Failure::new(format!(
        "setup: installed, but not found afterwards: {}; PATH may lack their folder, or hold another version before them",
        left.join(", ")
    )))
}

fn install_packages(packages: &[&str]) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if tool::find("apt-get").is_none() {
        return Err(Failure::new(format!(
            "setup: there is no apt-get here; install what these Debian packages hold, then run this again: {list}"
        )));
    }
    let root = Root::here();
    if root == Root::No {
        return Err(Failure::new(format!(
            "setup: neither root nor sudo here; have root run: apt-get install --no-install-recommends {list}"
        )));
    }
    if packages.contains(&"etcd-server") {
        keep_etcd_from_starting(root)?;
    }
    step("setup", root.command("apt-get", APT).arg("update"))?;
    step(
        "setup",
        root.command("apt-get", APT)
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )
}

/// No questions; and runlevel 1 keeps a machine with sysvinit from starting the services it is given.
const APT: &[(&str, &str)] = &[("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")];

/// Debian's package starts its etcd at once, on loopback, and again at every boot; the tests start their own and only
/// want the program. systemd's side of the package asks no runlevel: only a unit masked before the installation stays
/// down, and then over boots too. Whoever wants the service says `systemctl unmask etcd`.
fn keep_etcd_from_starting(root: Root) -> Result<(), Failure> {
    // sd_booted(3).
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    step(
        "setup",
        root.command("systemctl", &[])
            .args(["mask", "etcd.service"]),
    )
}

fn install_components(components: &[&str]) -> Result<(), Failure> {
    if components.is_empty() {
        return Ok(());
    }
    if tool::find("rustup").is_none() {
        return Err(Failure::new(format!(
            "setup: there is no rustup here; add to the Rust toolchain, then run this again: {}",
            components.join(" ")
        )));
    }
    step(
        "setup",
        Command::new("rustup")
            .args(["component", "add"])
            .args(components)
            .current_dir(run::root()),
    )
}

fn install_bpf_linker() -> Result<(), Failure> {
    let mut install = run::cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    // Flags meant for the project are not the linker's, and its build is no part of the project's.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        install.env_remove(name);
    }
    step("setup", &mut install)
}

fn names(needs: &[Need], source: Source) -> Vec<&'static str> {
    needs
        .iter()
        .filter(|need| need.source == source)
        .map(|need| need.name)
        .collect()
}

fn describe(need: &Need) -> String {
    let from = match need.source {
        Source::Apt => "Debian package".to_owned(),
        Source::Rustup => "rustup component".to_owned(),
        Source::Cargo => format!("{BPF_LINKER}, cargo install"),
    };
    format!("{} ({from}): {}", need.name, need.purpose)
}
