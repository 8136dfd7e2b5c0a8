//! `cargo xtask test`: all that must hold before a change is taken.

use std::process::Command;

use crate::run::{self, Failure, step};
use crate::tool::Root;
use crate::{build_ebpf, needs, setup};

/// Runs every check, the quick ones first, and ends with the test runner's own summary.
pub fn test() -> Result<(), Failure> {
    // Said before minutes of building, not after.
    let root = Root::here();
    if root == Root::No {
        return Err(Failure::new(
            "test: needs root (network namespaces and BPF), and there is no sudo here",
        ));
    }
    setup::setup(&[needs::ALWAYS])?;
    step("fmt", run::cargo().args(["fmt", "--all", "--check"]))?;
    build_ebpf::build()?;
    step(
        "clippy",
        run::cargo()
            .args(["clippy", "--all-targets", "--all-features"])
            .args(HOST)
            .args(DENY),
    )?;
    build_ebpf::clippy()?;
    step("without-ebpf", &mut check_without_ebpf())?;
    step("build", run::cargo().args(["build", "-p", "vip-agent"]))?;
    step("test", &mut cargo_test(root)?)
}

/// All but the kernel half, which knows no host.
const HOST: &[&str] = &["--workspace", "--exclude", "vip-ebpf"];

const DENY: &[&str] = &["--", "-D", "warnings"];

/// That the agent can be built by someone who has no BPF toolchain. Its own optimisation level, for this one package, gives
/// this variant a build script run of its own: the dependencies are shared with clippy, and neither variant makes the
/// other stale.
fn check_without_ebpf() -> Command {
    let mut check = run::cargo();
    check.args([
        "check",
        "-p",
        "vip-agent",
        "--config",
        "profile.dev.package.vip-agent.opt-level=1",
    ]);
    check.env("VIP_EBPF_OBJECT", "none");
    check
}

/// One run for all, so that a failure hides no other one.
fn cargo_test(root: Root) -> Result<Command, Failure> {
    let mut test = run::cargo();
    test.args(["test", "--no-fail-fast"]).args(HOST);
    test.env("VIP_AGENT_BIN", run::target().join("debug/vip-agent"));
    if root == Root::Sudo {
        let host = run::ask(Command::new("rustc").arg("-vV").current_dir(run::root()))
            .as_deref()
            .and_then(host)
            .map(runner_variable)
            .ok_or_else(|| Failure::new("test: `rustc -vV` names no host"))?;
        test.env(host, "sudo -E");
    }
    Ok(test)
}

/// The host's triple in the answer to `rustc -vV`.
fn host(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| line.strip_prefix("host: "))
}

/// The variable by which cargo is told what runs a target's programs.
fn runner_variable(triple: &str) -> String {
    format!(
        "CARGO_TARGET_{}_RUNNER",
        triple.to_uppercase().replace(['-', '.'], "_")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_runner_is_named_as_cargo_does() {
        let answer = "rustc 1.95.0 (59807616e 2026-04-14)\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(
            host(answer).map(runner_variable).as_deref(),
            Some("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER")
        );
        assert_eq!(host("rustc 1.95.0"), None);
    }
}
