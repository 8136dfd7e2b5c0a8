//! What the testbed needs from the machine, and what happens where it lacks.

use std::env;

use anyhow::{Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use crate::say;
use crate::xdp_pass::XdpPass;

/// Whether network namespaces and BPF are to be had. If not, the scenario is skipped with a line that says why; with `CI=true` that is a failure.
pub fn granted(scenario: &str) -> Result<bool> {
    let Some(why) = lacking() else {
        return Ok(true);
    };
    if env::var("CI").is_ok_and(|value| value == "true") {
        bail!("{scenario}: would be skipped, and CI=true allows no skip: {why}");
    }
    say::line(&format!("skipped: {scenario}: {why}"));
    Ok(false)
}

/// The reason why the testbed cannot run here, if there is one.
pub fn lacking() -> Option<String> {
    if !geteuid().is_root() {
        return Some("needs root (network namespaces and BPF); run it with sudo".to_owned());
    }
    // On a thread of its own: unshare is for good.
    let unshared = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    if let Ok(Err(error)) = unshared {
        return Some(format!("network namespaces are not allowed here: {error}"));
    }
    XdpPass::load()
        .err()
        .map(|error| format!("BPF is not allowed here: {error:#}"))
}
