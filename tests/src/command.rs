//! Helper programs (`ip`, `etcdctl`, …) that run to their end.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Runs a program and returns what it wrote to stdout; an exit code other than 0 is an error that carries its stderr.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    succeed(Command::new(program).args(arguments))
}

/// As [`run`], with the process inside a network namespace. Its mount namespace stays ours, unlike under `ip netns exec`.
pub fn run_in(netns: &Netns, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    netns.place(&mut command)?;
    succeed(&mut command)
}

/// Runs a prepared command to its end and returns its stdout; fails with its stderr.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{}: {}; it wrote: {}",
            told(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a prepared command to its end, whatever its exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    // A process group of its own: Ctrl-C in a terminal must not kill the very `ip` that is clearing up.
    command.stdin(Stdio::null()).process_group(0);
    command.output().with_context(|| {
        format!(
            "{}: cannot be started; is it installed? (`cargo xtask setup` installs what is needed)",
            told(command)
        )
    })
}

fn told(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    format!("`{}`", words.join(" "))
}
