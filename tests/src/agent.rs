//! An agent as a process: its configuration, its life, and what its `status` says.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bed::{BOTH, VIP};
use crate::command;
use crate::etcd::{Cluster, Security, USER};
use crate::node::Node;
use crate::process::{Process, tail};

/// The name of an agent's log in its node's directory.
pub const AGENT_LOG: &str = "agent.log";

/// The parts of an agent's configuration that scenarios vary.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// `node`; `None` leaves it out.
    pub node: Option<String>,
    /// `lease.ttl`.
    pub ttl: String,
    /// `on-stop`.
    pub on_stop: String,
    /// `on-conflict`.
    pub on_conflict: String,
    /// `interfaces[0].interface`.
    pub interface: String,
    /// `interfaces[0].dataplane`.
    pub dataplane: String,
    /// The shared IPs on that interface.
    pub vips: Vec<IpAddr>,
    /// What else a shared IP's entry says, as it stands in the file: `priority: 200, group: web`.
    pub of_vip: BTreeMap<IpAddr, String>,
    /// What else that interface's entry says, a line each: `health: [{ tcp: 127.0.0.1:80 }]`.
    pub of_interface: Vec<String>,
    /// Other interfaces, and the shared IPs on them.
    pub other_interfaces: Vec<(String, Vec<IpAddr>)>,
    /// What else the file says at its top, a line each: `preempt: 2s`.
    pub top: Vec<String>,
    /// `etcd.endpoints`; `None` = all members of the bed's cluster, in the same order on all nodes, as one file rolled out everywhere has it.
    pub endpoints: Option<Vec<String>>,
    /// The password of `etcd.user` where the cluster wants one.
    pub password: String,
    /// What the agent's process finds in its environment.
    pub environment: Vec<(String, String)>,
}

impl AgentConfig {
    /// The defaults of the scenarios: TTL 2 s, `eth0`, the data plane chosen by the agent.
    pub fn new(vip: IpAddr) -> AgentConfig {
        AgentConfig {
            node: None,
            ttl: "2s".to_owned(),
            on_stop: "release".to_owned(),
            on_conflict: "defend".to_owned(),
            interface: "eth0".to_owned(),
            dataplane: "auto".to_owned(),
            vips: vec![vip],
            of_vip: BTreeMap::new(),
            of_interface: Vec::new(),
            other_interfaces: Vec::new(),
            top: Vec::new(),
            endpoints: None,
            password: USER.1.to_owned(),
            environment: Vec::new(),
        }
    }

    /// As [`AgentConfig::new`], with one shared IP of each family.
    pub fn of_both_families() -> AgentConfig {
        AgentConfig {
            vips: BOTH.to_vec(),
            ..AgentConfig::new(VIP)
        }
    }

    /// Has these be the shared IPs of its first interface.
    pub fn with_vips(mut self, vips: &[IpAddr]) -> AgentConfig {
        self.vips = vips.to_vec();
        self
    }

    /// Says more of some shared IPs: `group: web`.
    pub fn saying(mut self, vips: &[IpAddr], keys: &str) -> AgentConfig {
        for vip in vips {
            let said = self.of_vip.entry(*vip).or_default();
            if !said.is_empty() {
                said.push_str(", ");
            }
            said.push_str(keys);
        }
        self
    }

    /// Says more at the top of the file: `rebalance: 1s`.
    pub fn with(mut self, line: &str) -> AgentConfig {
        self.top.push(line.to_owned());
        self
    }

    /// Writes the file for a node, and the password file where the cluster wants one.
    pub fn write(&self, node: &Node, cluster: &Cluster) -> Result<PathBuf> {
        let endpoints = self
            .endpoints
            .clone()
            .unwrap_or_else(|| cluster.endpoints());
        let mut yaml = format!(
            "node: {}\netcd:\n  endpoints: [{}]\n",
            self.node.as_deref().unwrap_or(node.name()),
            endpoints.join(", ")
        );
        if let Some(tls) = cluster.certificates() {
            writeln!(
                yaml,
                "  tls: {{ ca: {}, cert: {}, key: {} }}",
                tls.ca.display(),
                tls.client.display(),
                tls.client_key.display()
            )?;
        }
        if cluster.security() == Security::Password {
            let file = node.directory().join("password");
            fs::write(&file, format!("{}\n", self.password))?;
            writeln!(
                yaml,
                "  user: {{ name: {}, password-file: {} }}",
                USER.0,
                file.display()
            )?;
        }
        writeln!(
            yaml,
            "lease: {{ ttl: {} }}\non-stop: {}\non-conflict: {}",
            self.ttl, self.on_stop, self.on_conflict
        )?;
        for line in &self.top {
            writeln!(yaml, "{line}")?;
        }
        writeln!(
            yaml,
            "interfaces:\n  - interface: {}\n    dataplane: {}",
            self.interface, self.dataplane
        )?;
        for line in &self.of_interface {
            writeln!(yaml, "    {line}")?;
        }
        self.write_vips(&mut yaml, &self.vips)?;
        for (interface, vips) in &self.other_interfaces {
            writeln!(yaml, "  - interface: {interface}")?;
            self.write_vips(&mut yaml, vips)?;
        }
        writeln!(
            yaml,
            "state-dir: {}\nbpf-dir: {}",
            node.state_dir().display(),
            node.bpf_dir().display()
        )?;
        let path = node.directory().join("agent.yaml");
        fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn write_vips(&self, yaml: &mut String, vips: &[IpAddr]) -> Result<()> {
        writeln!(yaml, "    vips:")?;
        for vip in vips {
            let more = self.of_vip.get(vip).map_or("", String::as_str);
            let comma = if more.is_empty() { "" } else { ", " };
            writeln!(yaml, "      - {{ ip: {vip}{comma}{more} }}")?;
        }
        Ok(())
    }
}

/// Starts `vip-agent run --config <file>` on a node; its log is appended to `agent.log`.
pub fn start(node: &Node, config: &Path, environment: &[(String, String)]) -> Result<Process> {
    let file = config.to_string_lossy();
    let mut command = vip_agent(&["run", "--config", &file])?;
    command.envs(environment.iter().cloned());
    launch(node, command, AGENT_LOG)
}

/// Starts `vip-agent <arguments>` on a node with a log file of its own.
pub fn start_with(node: &Node, arguments: &[&str], log: &str) -> Result<Process> {
    launch(node, vip_agent(arguments)?, log)
}

/// As [`start_with`], from another place than [`binary`].
pub fn start_program(
    node: &Node,
    program: &Path,
    arguments: &[&str],
    log: &str,
) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(arguments);
    launch(node, command, log)
}

/// Runs `vip-agent <arguments>` on a node to its end.
pub fn run(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = vip_agent(arguments)?;
    node.netns().place(&mut command)?;
    command::output(&mut command)
}

/// Asks the agent on a node by `vip-agent status --json`.
pub fn status(node: &Node) -> Result<Status> {
    let text = ask_status(node, &["--json"])?;
    Ok(Status(serde_json::from_str(&text).with_context(|| {
        format!(
            "`vip-agent status --json` on {} printed {text}",
            node.name()
        )
    })?))
}

/// Asks the agent on a node by `vip-agent status`.
pub fn status_text(node: &Node) -> Result<String> {
    ask_status(node, &[])
}

/// The agent's program: `$VIP_AGENT_BIN`, or `vip-agent` beside the running program or one directory up (cargo puts tests into `deps`).
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("VIP_AGENT_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("VIP_AGENT_BIN names {}, which is no file", path.display());
        }
        return Ok(path);
    }
    let me = env::current_exe().context("finding the running program's path")?;
    let candidates: Vec<PathBuf> = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("vip-agent"))
        .collect();
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "vip-agent is not built (looked for {}): run `cargo xtask build-ebpf` and `cargo build -p vip-agent`, or name it in VIP_AGENT_BIN",
        looked.join(" and ")
    )
}

/// The last lines of a log under a heading, for a failed scenario; empty if there is no log.
pub fn log_tail(what: &str, log: &Path, lines: usize) -> String {
    let text = tail(log, lines);
    if text.is_empty() {
        return text;
    }
    format!("--- {what}: the last lines of {}\n{text}", log.display())
}

/// What `vip-agent status --json` said.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// `starting`, `waiting`, `joined` or `stopping`.
    pub fn state(&self) -> &str {
        self.text("/state")
    }

    /// What it waits for, one sentence per line.
    pub fn waiting_for(&self) -> String {
        let items = self
            .0
            .pointer("/waiting_for")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The names of the members that it sees.
    pub fn members(&self) -> Vec<&str> {
        let members = self
            .0
            .pointer("/members")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        members
            .iter()
            .filter_map(|member| member.get("node")?.as_str())
            .collect()
    }

    /// What is said of one shared IP.
    pub fn vip(&self, vip: IpAddr) -> Result<VipStatus> {
        let wanted = vip.to_string();
        let vips = self
            .0
            .pointer("/vips")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = vips
            .iter()
            .find(|entry| entry.get("ip").and_then(Value::as_str) == Some(&wanted));
        Ok(VipStatus(
            found
                .with_context(|| format!("status tells nothing of {vip}: {}", self.0))?
                .clone(),
        ))
    }

    /// What is said of one interface.
    pub fn interface(&self, name: &str) -> Result<Value> {
        let interfaces = self
            .0
            .pointer("/interfaces")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = interfaces
            .iter()
            .find(|entry| entry.get("interface").and_then(Value::as_str) == Some(name));
        Ok(found
            .with_context(|| format!("status tells nothing of {name}: {}", self.0))?
            .clone())
    }

    /// A text by JSON pointer; empty if it is missing.
    pub fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// One entry of `vips`.
#[derive(Clone, Debug)]
pub struct VipStatus(pub Value);

impl VipStatus {
    /// `owner`, `follower`, …
    pub fn role(&self) -> &str {
        self.text("/role")
    }

    /// The owner's name as this node knows it.
    pub fn owner(&self) -> Option<&str> {
        self.0.get("owner").and_then(Value::as_str)
    }

    /// The owner key's revision.
    pub fn epoch(&self) -> u64 {
        self.number("/epoch")
    }

    /// `open`, `closed` or `unfenced`.
    pub fn gate(&self) -> &str {
        self.text("/gate/state")
    }

    /// One of the counters.
    pub fn counter(&self, name: &str) -> u64 {
        self.number(&format!("/counters/{name}"))
    }

    /// The MAC of the machine that claimed it last and is no member, and what was done about that.
    pub fn conflict(&self) -> Option<(&str, &str)> {
        let of = |field: &str| self.0.pointer(&format!("/conflict/{field}"))?.as_str();
        Some((of("mac")?, of("response")?))
    }

    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> u64 {
        self.0
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }
}

fn ask_status(node: &Node, flags: &[&str]) -> Result<String> {
    // An agent that hangs must fail a wait, not hang the test.
    let mut command = Command::new("timeout");
    command
        .arg("5")
        .arg(binary()?)
        .arg("status")
        .args(flags)
        .arg("--state-dir")
        .arg(node.state_dir());
    command::succeed(&mut command)
}

fn launch(node: &Node, mut command: Command, log: &str) -> Result<Process> {
    // A log that a panic's backtrace would be in: no test may find one there.
    command.env("RUST_BACKTRACE", "1");
    Process::start(
        &format!("the agent on {}", node.name()),
        node.netns(),
        command,
        &node.directory().join(log),
    )
}

fn vip_agent(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    Ok(command)
}
