//! `cargo xtask demo`: builds the agent and the demo, then becomes the demo.

use std::os::unix::process::CommandExt;

use crate::run::{self, Failure, step};
use crate::tool::Root;
use crate::{build_ebpf, setup};

/// What becomes of the demo's network, other than its removal at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// It is left standing.
    Keep,
    /// One left standing is removed.
    Down,
}

/// Returns only if the demo could not be started.
pub fn demo(ending: Option<Ending>) -> Result<(), Failure> {
    // Said before minutes of building, not after.
    let root = Root::here();
    if root == Root::No {
        return Err(Failure::new(
            "demo: needs root (network namespaces and BPF), and there is no sudo here",
        ));
    }
    setup::setup()?;
    build_ebpf::build()?;
    let packages = [
        "-p",
        "vip-agent",
        "-p",
        "vip-tests",
        "--bin",
        "vip-agent",
        "--bin",
        "demo",
    ];
    step(
        "build",
        run::cargo().args(["build", "--release"]).args(packages),
    )?;

    let release = run::target().join("release");
    let (agent, demo) = (release.join("vip-agent"), release.join("demo"));
    let mut command = root.command(
        &demo.to_string_lossy(),
        &[("VIP_AGENT_BIN", &agent.to_string_lossy())],
    );
    command.args(ending.map(Ending::flag));
    let error = command.exec();
    Err(Failure::new(format!(
        "demo: cannot run {}: {error}",
        demo.display()
    )))
}

impl Ending {
    fn flag(self) -> &'static str {
        match self {
            Ending::Keep => "--keep",
            Ending::Down => "--down",
        }
    }
}
