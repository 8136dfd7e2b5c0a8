//! What `demo` and `chaos` have in common: building the agent and a program of the testbed, and becoming the latter.

use std::os::unix::process::CommandExt;

use crate::run::{self, Failure, step};
use crate::tool::Root;
use crate::{build_ebpf, needs, setup};

/// Builds all, then becomes the testbed's program of this name. Returns only if that could not be started.
pub fn become_program(name: &str, arguments: &[String]) -> Result<(), Failure> {
    // Said before minutes of building, not after.
    let root = Root::here();
    if root == Root::No {
        return Err(Failure::new(format!(
            "{name}: needs root (network namespaces and BPF), and there is no sudo here"
        )));
    }
    setup::setup(&[needs::ALWAYS])?;
    build_ebpf::build()?;
    let packages = ["-p", "vip-agent", "-p", "vip-tests"];
    let programs = ["--bin", "vip-agent", "--bin", name];
    step(
        "build",
        run::cargo()
            .args(["build", "--release"])
            .args(packages)
            .args(programs),
    )?;

    let release = run::target().join("release");
    let (agent, program) = (release.join("vip-agent"), release.join(name));
    let mut command = root.command(
        &program.to_string_lossy(),
        &[("VIP_AGENT_BIN", &agent.to_string_lossy())],
    );
    command.args(arguments);
    let error = command.exec();
    Err(Failure::new(format!(
        "{name}: cannot run {}: {error}",
        program.display()
    )))
}
