//! A program that keeps running on a node: an agent or an etcd member.

use std::fs::{self, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::netns::Netns;
use crate::wait;

/// A running program with its log file. Dropping it kills it, unless it was [left](Process::leave).
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a command inside a namespace; stdout and stderr are appended to `log`.
    pub fn start(name: &str, netns: &Netns, mut command: Command, log: &Path) -> Result<Process> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        netns.place(&mut command)?;
        // SAFETY: between fork and exec only setsid is called, a plain system call. A session of its own keeps a terminal's Ctrl-C and hang-up away.
        unsafe {
            command.pre_exec(|| Ok(setsid().map(drop)?));
        }
        let child = command.spawn().with_context(|| {
            format!(
                "starting {name} ({})",
                command.get_program().to_string_lossy()
            )
        })?;
        Ok(Process {
            name: name.to_owned(),
            child: Some(child),
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.child
            .as_ref()
            .map(Child::id)
            .ok_or_else(|| anyhow!("{} was left to itself", self.name))
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Sends a signal; an error if it has already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!(
                "{}: {} cannot be sent, it has ended with {status}; its log: {}",
                self.name,
                signal,
                self.log.display()
            );
        }
        kill(Pid::from_raw(i32::try_from(self.pid()?)?), signal)
            .with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(&what, within, || self.exited())
    }

    /// SIGKILL; returns once it is gone. Works on a frozen one and on one that has ended.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child
                .kill()
                .with_context(|| format!("killing {}", self.name))?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGKILL without waiting, for killing several at one instant.
    pub fn strike(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => child
                .kill()
                .with_context(|| format!("killing {}", self.name)),
            None => Ok(()),
        }
    }

    /// Lets it run on after we are gone.
    pub fn leave(&mut self) {
        self.child = None;
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn log_text(&self) -> Result<String> {
        let bytes =
            fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The namespace's end kills whatever is missed here.
        let _ = self.kill();
    }
}

/// `exit code 2` or `killed by SIGKILL`, for messages.
pub fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => Signal::try_from(number).map_or_else(
            |_| format!("killed by signal {number}"),
            |signal| format!("killed by {signal}"),
        ),
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log file.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
