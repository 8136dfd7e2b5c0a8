//! The agent's commands, as people type them at a node.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::agent;
use crate::bed::Bed;
use crate::command;

/// A command that hangs must fail its test, not hang it: `timeout` ends it after so many seconds, with exit code 124.
const HANGS_AFTER_S: &str = "40";

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
}

impl Answer {
    /// Fails unless the exit code is 0; returns what it wrote to stdout.
    pub fn good(self) -> Result<String> {
        ensure!(self.code == Some(0), "it failed: {self:?}");
        Ok(self.out)
    }

    /// Fails unless the exit code is 1 and one line on stderr has all these words; a command that was refused says why.
    pub fn refused(&self, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(1), "it was not refused: {self:?}");
        let lines = self.err.trim_end().lines().count();
        ensure!(lines == 1, "a refusal is one line: {self:?}");
        ensure!(
            words.iter().all(|word| self.err.contains(word)),
            "the refusal lacks one of {words:?}: {self:?}"
        );
        Ok(())
    }

    /// All that it wrote.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Bed {
    /// `vip-agent <arguments>` at a node, which talks to the agent there.
    pub fn type_at(&self, index: usize, arguments: &[&str]) -> Result<Answer> {
        let output = command::output(&mut self.typed_at(index, arguments)?)?;
        Ok(Answer {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The same, not yet started.
    pub fn typed_at(&self, index: usize, arguments: &[&str]) -> Result<Command> {
        let node = &self.nodes[index];
        let mut command = Command::new("timeout");
        command
            .arg(HANGS_AFTER_S)
            .arg(agent::binary()?)
            .args(arguments)
            .arg("--state-dir")
            .arg(node.state_dir());
        node.netns().place(&mut command)?;
        Ok(command)
    }

    /// `vip-agent transfer VIP --to NODE` at a node.
    pub fn transfer(&self, at: usize, vip: IpAddr, to: usize) -> Result<Answer> {
        let to = self.nodes[to].name();
        self.type_at(at, &["transfer", &vip.to_string(), "--to", to])
    }

    /// `vip-agent drain --wait` at a node, of that node.
    pub fn drain(&self, index: usize) -> Result<Answer> {
        self.type_at(index, &["drain", "--wait"])
    }

    /// `vip-agent undrain` at a node, of that node.
    pub fn undrain(&self, index: usize) -> Result<Answer> {
        self.type_at(index, &["undrain"])
    }

    /// The nodes of `vip-agent members --json` at a node.
    pub fn members(&self, at: usize) -> Result<Value> {
        let text = self.type_at(at, &["members", "--json"])?.good()?;
        let document: Value = serde_json::from_str(&text)
            .with_context(|| format!("`vip-agent members --json` printed {text}"))?;
        let members = document.get("members").cloned();
        members.with_context(|| format!("`vip-agent members --json` printed {text}"))
    }
}
