//! What people get wrong: one clear line, the right exit code, and nothing left behind.

use std::fs;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vip_tests::agent::{self, AgentConfig};
use vip_tests::bed::{Bed, Setup, VIP, scenario};
use vip_tests::command;
use vip_tests::etcd::Security;
use vip_tests::failover::SETTLED_WITHIN;
use vip_tests::node::Node;
use vip_tests::wait;

const PATIENCE: Duration = Duration::from_secs(10);
const ONE_NODE: Setup = Setup {
    nodes: 1,
    mgmt: false,
    two_cables: false,
    security: Security::Open,
    etcd: false,
};
const GOOD: &str = "
node: n1
etcd:
  endpoints: [http://10.77.0.1:2379]
lease: { ttl: 2s }
interfaces:
  - interface: eth0
    vip: { ip: 10.77.0.100 }
state-dir: STATE
bpf-dir: BPF
";

/// A mistake: what is wrong, the text of the good file, what stands there instead, and what the message must name.
struct Mistake(&'static str, &'static str, &'static str, &'static str);

const MISTAKES: &[Mistake] = &[
    Mistake(
        "unknown key at the top",
        "node: n1",
        "node: n1\nnodes: 3",
        "nodes",
    ),
    Mistake(
        "unknown key below",
        "lease: { ttl: 2s }",
        "lease: { tll: 2s }",
        "tll",
    ),
    Mistake(
        "unknown key of an interface",
        "    vip: {",
        "    vipp: {",
        "vipp",
    ),
    Mistake("not YAML", "etcd:\n", "etcd: [\n", "mistake.yaml:"),
    Mistake("wrong type", "lease: { ttl: 2s }", "lease: 2s", "lease"),
    Mistake("no address", "10.77.0.100 }", "ten }", "ten"),
    Mistake(
        "octet above 255",
        "10.77.0.100 }",
        "10.77.0.256 }",
        "10.77.0.256",
    ),
    Mistake(
        "address with a prefix",
        "10.77.0.100 }",
        "10.77.0.100/24 }",
        "10.77.0.100/24",
    ),
    Mistake(
        "multicast address",
        "10.77.0.100 }",
        "224.0.0.18 }",
        "224.0.0.18",
    ),
    Mistake(
        "broadcast address",
        "10.77.0.100 }",
        "255.255.255.255 }",
        "255.255.255.255",
    ),
    Mistake("network address", "10.77.0.100 }", "0.0.0.0 }", "0.0.0.0"),
    Mistake(
        "loopback address",
        "10.77.0.100 }",
        "127.0.0.1 }",
        "127.0.0.1",
    ),
    Mistake(
        "interface name too long",
        "interface: eth0",
        "interface: a-very-long-name",
        "a-very-long-name",
    ),
    Mistake(
        "interface name empty",
        "interface: eth0",
        "interface: ''",
        "interface",
    ),
    Mistake("TTL of 0", "ttl: 2s", "ttl: 0s", "ttl"),
    Mistake("TTL below a second", "ttl: 2s", "ttl: 500ms", "ttl"),
    Mistake(
        "TTL below etcd's least",
        "ttl: 2s",
        "ttl: 1s",
        "2s at least",
    ),
    Mistake("no TTL at all", "ttl: 2s", "ttl: soon", "soon"),
    Mistake(
        "two shared IPs alike",
        "vip: { ip: 10.77.0.100 }",
        "vips: [{ ip: 10.77.0.100 }, { ip: 10.77.0.100 }]",
        "10.77.0.100",
    ),
    Mistake("no shared IP", "    vip: { ip: 10.77.0.100 }\n", "", "vip"),
    Mistake(
        "no endpoint",
        "endpoints: [http://10.77.0.1:2379]",
        "endpoints: []",
        "endpoints",
    ),
    Mistake(
        "endpoint without a scheme",
        "[http://10.77.0.1:2379]",
        "['10.77.0.1:2379']",
        "10.77.0.1:2379",
    ),
    Mistake(
        "endpoint on the shared IP",
        "[http://10.77.0.1:2379]",
        "[http://10.77.0.100:2379]",
        "10.77.0.100",
    ),
    Mistake(
        "unknown data plane",
        "interface: eth0",
        "interface: eth0\n    dataplane: dpdk",
        "dpdk",
    ),
    Mistake(
        "unknown on-stop",
        "node: n1",
        "node: n1\non-stop: panic",
        "on-stop",
    ),
    Mistake("node name that is no key", "node: n1", "node: a/b", "a/b"),
    Mistake(
        "CA that is not there",
        "[http://10.77.0.1:2379]",
        "[https://10.77.0.1:2379]\n  tls: { ca: /nowhere/ca.pem, cert: /nowhere/me.pem, key: /nowhere/me.key }",
        "/nowhere/ca.pem",
    ),
];

#[test]
fn mistakes_in_the_file_get_one_line_and_exit_code_2() -> Result<()> {
    scenario("mistakes in the file", ONE_NODE, |bed| {
        let mut wrong = Vec::new();
        for Mistake(what, from, to, named) in MISTAKES {
            ensure!(GOOD.contains(from), "{what}: the good file has no {from:?}");
            let output = run_with(&bed.nodes[0], &GOOD.replacen(from, to, 1))?;
            if let Err(error) = one_line(&output, 2, named).and_then(|()| nothing_left(bed)) {
                wrong.push(format!("{what}: {error:#}"));
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} of {} mistakes:\n{}",
            wrong.len(),
            MISTAKES.len(),
            wrong.join("\n")
        );
        Ok(())
    })
}

#[test]
fn mistakes_in_the_flags_get_exit_code_2() -> Result<()> {
    scenario("mistakes in the flags", ONE_NODE, |bed| {
        let node = &bed.nodes[0];
        for (arguments, named) in [
            (
                &["run", "--config", "/nowhere/agent.yaml"][..],
                "/nowhere/agent.yaml",
            ),
            (
                &[
                    "run",
                    "--interface",
                    "eth0",
                    "--vip",
                    "ten",
                    "--etcd",
                    "http://10.77.0.1:2379",
                ],
                "ten",
            ),
            (
                &["run", "--interface", "eth0", "--vip", "10.77.0.100"],
                "etcd",
            ),
            (&["run", "--frobnicate"], "--frobnicate"),
            (
                &[
                    "run",
                    "--interface",
                    "eth0",
                    "--vip",
                    "10.77.0.100",
                    "--etcd",
                    "http://10.77.0.1:2379",
                    "--ttl",
                    "1s",
                ],
                "2s at least",
            ),
            (
                &["run", "--config", "/nowhere", "--log-level", "inof"],
                "`inof`",
            ),
        ] {
            let output = bounded(node, arguments)?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(2) && stderr.contains(named),
                "{arguments:?}: {}: {stderr}",
                output.status
            );
            ensure!(!stderr.contains("panicked"), "{stderr}");
        }
        nothing_left(bed)
    })
}

#[test]
fn an_address_that_the_machine_or_its_network_has_gets_exit_code_2() -> Result<()> {
    let setup = Setup {
        two_cables: true,
        ..ONE_NODE
    };
    scenario("a shared IP that is taken", setup, |bed| {
        let node = &bed.nodes[0];
        let second = node.interface("eth2")?.addresses.v4.to_string();
        for (vip, named) in [
            ("10.77.0.0", "network address"),
            ("10.77.0.255", "broadcast address"),
            ("10.77.0.1", "own address"),
            (&second, "own address on eth2"),
        ] {
            let yaml = GOOD
                .replace("[http://10.77.0.1:2379]", "[http://10.99.0.1:2379]")
                .replace("10.77.0.100", vip);
            let output = run_with(node, &yaml)?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().last().unwrap_or_default();
            ensure!(
                output.status.code() == Some(2) && last.contains(vip) && last.contains(named),
                "{vip}: {}: {stderr}",
                output.status
            );
            nothing_left(bed)?;
        }
        Ok(())
    })
}

#[test]
fn a_shared_ip_outside_the_networks_is_served_with_a_warning() -> Result<()> {
    scenario(
        "a shared IP outside",
        Setup {
            etcd: true,
            ..ONE_NODE
        },
        |bed| {
            let outside = IpAddr::from([10, 9, 9, 9]);
            bed.start_agent(0, &AgentConfig::new(outside))?;
            bed.settled(outside, &[0], SETTLED_WITHIN)?;
            let log = bed.agent(0)?.log_text()?;
            let warnings: Vec<&str> = log
                .lines()
                .filter(|line| line.contains("in none of eth0's networks"))
                .collect();
            ensure!(
                warnings.len() == 1
                    && warnings[0].contains("WARN")
                    && warnings[0].contains("10.9.9.9")
                    && warnings[0].contains("10.77.0.0/24"),
                "{log}"
            );
            Ok(())
        },
    )
}

#[test]
fn a_bpf_dir_off_a_bpffs_gets_exit_code_1() -> Result<()> {
    scenario("bpf-dir not on a bpffs", ONE_NODE, |bed| {
        let directory = bed.nodes[0].directory().join("no-bpffs");
        let output = run_with(
            &bed.nodes[0],
            &GOOD.replace("BPF", &directory.to_string_lossy()),
        )?;
        one_line(&output, 1, &directory.to_string_lossy())?;
        ensure!(!directory.exists(), "{} was made", directory.display());
        nothing_left(bed)
    })
}

#[test]
fn no_permission_gets_exit_code_1() -> Result<()> {
    scenario("no permission", ONE_NODE, |bed| {
        let node = &bed.nodes[0];
        let file = write(node, GOOD)?;
        // Root's files stay readable without any capability, so only BPF and the network are refused.
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set",
            "-all",
            "--inh-caps",
            "-all",
            "timeout",
            "20",
        ]);
        command
            .arg(agent::binary()?)
            .args(["run", "--config", &file]);
        node.netns().place(&mut command)?;
        one_line(&command::output(&mut command)?, 1, "")?;
        nothing_left(bed)
    })
}

#[test]
fn a_user_that_etcd_refuses_gets_exit_code_1() -> Result<()> {
    scenario(
        "etcd refuses the user",
        Setup {
            security: Security::Password,
            ..Setup::default()
        },
        |bed| {
            let config = AgentConfig {
                password: "wrong".to_owned(),
                ..AgentConfig::new(VIP)
            };
            let file = config.write(&bed.nodes[0], &bed.cluster)?;
            let output = bounded(&bed.nodes[0], &["run", "--config", &file.to_string_lossy()])?;
            one_line(&output, 1, "vip-agent")?;
            nothing_left(bed)
        },
    )
}

#[test]
fn an_etcd_that_is_away_is_told_once_and_so_is_its_return() -> Result<()> {
    scenario("etcd comes later", ONE_NODE, |bed| {
        bed.start_agent(0, &AgentConfig::new(VIP))?;
        let agent_says = |bed: &mut Bed, words: &str| -> Result<usize> {
            Ok(bed.agent(0)?.log_text()?.matches(words).count())
        };
        wait::until_true("the agent to miss etcd", PATIENCE, || {
            Ok(agent_says(bed, "etcd is unavailable")? > 0
                && bed.status(0)?.waiting_for().contains("Connection refused"))
        })?;
        wait::holds(
            "said once, whatever the tries",
            Duration::from_secs(3),
            || Ok(agent_says(bed, "etcd is unavailable")? == 1),
        )?;
        bed.cluster.start_all()?;
        bed.settled(VIP, &[0], SETTLED_WITHIN)?;
        let log = bed.agent(0)?.log_text()?;
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("unavailable"))
            .collect();
        ensure!(
            lines.len() == 1
                && lines[0].contains("WARN")
                && lines[0].contains("http://10.77.0.1:2379")
                && lines[0].contains("Connection refused"),
            "{log}"
        );
        ensure!(agent_says(bed, "etcd is available again")? == 1, "{log}");
        // Debian's etcd; one that is mended needs no warning.
        let is_old = log.contains("version=\"3.4.23\"");
        ensure!(
            is_old == (etcd_version()? == "3.4.23") && log.matches("update is wise").count() <= 1,
            "{log}"
        );
        Ok(())
    })
}

fn etcd_version() -> Result<String> {
    let text = command::succeed(Command::new("etcd").arg("--version"))?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(version.context("etcd tells no version")?.trim().to_owned())
}

#[test]
fn status_without_an_agent_says_so() -> Result<()> {
    scenario("status without an agent", ONE_NODE, |bed| {
        let node = &bed.nodes[0];
        let output = bounded(
            node,
            &["status", "--state-dir", &node.state_dir().to_string_lossy()],
        )?;
        one_line(&output, 1, &node.state_dir().to_string_lossy())
    })
}

#[test]
fn status_after_an_agent_died_says_what_it_left() -> Result<()> {
    scenario("status after a death", ONE_NODE, |bed| {
        bed.start_agent(0, &AgentConfig::new(VIP))?;
        wait::until_true("the agent to answer", PATIENCE, || {
            Ok(bed.status(0)?.state() == "waiting")
        })?;
        bed.kill_agent(0)?;
        let node = &bed.nodes[0];
        let config = node.directory().join("agent.yaml");
        let asked = |command| bounded(node, &[command, "--config", &config.to_string_lossy()]);
        let status = asked("status")?;
        one_line(&status, 1, &node.bpf_dir().to_string_lossy())?;
        one_line(&status, 1, "vip-agent cleanup")?;
        ensure!(asked("cleanup")?.status.success(), "cleanup failed");
        one_line(&asked("status")?, 1, "--state-dir")?;
        nothing_left(bed)
    })
}

fn run_with(node: &Node, yaml: &str) -> Result<Output> {
    let file = write(node, yaml)?;
    bounded(node, &["run", "--config", &file])
}

fn write(node: &Node, yaml: &str) -> Result<String> {
    let yaml = yaml
        .replace("STATE", &node.state_dir().to_string_lossy())
        .replace("BPF", &node.bpf_dir().to_string_lossy());
    let file = node.directory().join("mistake.yaml");
    fs::write(&file, yaml)?;
    Ok(file.to_string_lossy().into_owned())
}

/// Runs the agent, but not for ever: one that takes a mistake for good would wait for etcd.
fn bounded(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after", "5", "10"])
        .arg(agent::binary()?)
        .args(arguments);
    node.netns().place(&mut command)?;
    command::output(&mut command)
}

/// Checks the exit code, and that stderr has a single error line which names the thing. Log lines of an earlier, good stage may stand before it.
fn one_line(output: &Output, code: i32, named: &str) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr
        .trim_end()
        .lines()
        .last()
        .context("nothing on stderr")?;
    if output.status.code() == Some(124) {
        bail!("was taken for good; its log: {stderr}");
    }
    ensure!(
        output.status.code() == Some(code),
        "{} instead of exit code {code}: {stderr}",
        output.status
    );
    ensure!(
        last.contains(named),
        "the last line does not name {named:?}: {stderr}"
    );
    ensure!(
        code == 1 || stderr.trim_end().lines().count() == 1,
        "more than one line: {stderr}"
    );
    ensure!(
        !stderr.contains("panicked") && !stderr.contains("stack backtrace"),
        "{stderr}"
    );
    Ok(())
}

fn nothing_left(bed: &Bed) -> Result<()> {
    for node in &bed.nodes {
        ensure!(node.pins()?.is_empty(), "pins are left: {:?}", node.pins()?);
        ensure!(!node.has_address(VIP)?, "the address is left");
        ensure!(
            !node
                .netns()
                .ip(&["-d", "link", "show", "eth0"])?
                .contains("xdp"),
            "an XDP program is left"
        );
        let state = node.state_dir();
        let files: Vec<_> = match fs::read_dir(&state) {
            Ok(entries) => entries
                .filter_map(|entry| Some(entry.ok()?.file_name()))
                .collect(),
            Err(_) => Vec::new(),
        };
        ensure!(
            !files
                .iter()
                .any(|name| name.to_string_lossy().ends_with(".sock")),
            "files are left in {}: {files:?}",
            state.display()
        );
    }
    Ok(())
}

#[test]
fn the_good_file_is_good() -> Result<()> {
    scenario("the good file", ONE_NODE, |bed| {
        let file = write(&bed.nodes[0], GOOD)?;
        let mut process =
            agent::start_with(&bed.nodes[0], &["run", "--config", &file], "agent.log")?;
        let waiting = wait::until_true(
            "the agent to wait for etcd",
            Duration::from_secs(10),
            || Ok(bed.status(0)?.waiting_for().contains("etcd")),
        );
        process.kill()?;
        waiting
    })
}
