//! The whole: a switch, nodes, a client, etcd and agents; and the frame that every scenario runs in.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use pnet::util::MacAddr;

use crate::addresses::Addresses;
use crate::agent::{self, AGENT_LOG, AgentConfig, Status, log_tail};
use crate::etcd::{Cluster, Security};
use crate::netns::Netns;
use crate::node::Node;
use crate::probe::client::TICK;
use crate::probe::frames::Asker;
use crate::probe::records::Source;
use crate::probe::socket::PacketSocket;
use crate::probe::{Plan, Probe};
use crate::process::Process;
use crate::run::Run;
use crate::stranger::Stranger;
use crate::switch::{Interface, LAN, MGMT, Switch};
use crate::wire::Tap;
use crate::{privilege, say, wait};

/// The shared IPs of the scenarios. The nodes queue for both in the same order.
pub const SHARED: Addresses = Addresses {
    v4: Ipv4Addr::new(10, 77, 0, 100),
    v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x1000),
};
/// The one that most scenarios do with.
pub const VIP: IpAddr = IpAddr::V4(SHARED.v4);
/// The one beside it of the other family.
pub const VIP6: IpAddr = IpAddr::V6(SHARED.v6);
/// One of each family.
pub const BOTH: [IpAddr; 2] = [VIP, VIP6];
const CLIENT: Addresses = Addresses::new(77, 200);
const NOBODY: Addresses = Addresses::new(77, 201);
const STRANGER: Addresses = Addresses::new(77, 66);
/// Of an agent's log, and of etcd's, which talks more.
const TAIL_LINES: (usize, usize) = (40, 6);

/// What a scenario needs.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many nodes, with an etcd member each.
    pub nodes: u8,
    /// Whether etcd has a network of its own.
    pub mgmt: bool,
    /// Whether the first node has a second cable into the LAN (`eth2`).
    pub two_cables: bool,
    /// Who may talk to etcd.
    pub security: Security,
    /// Whether etcd runs from the start.
    pub etcd: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: 3,
            mgmt: false,
            two_cables: false,
            security: Security::Open,
            etcd: true,
        }
    }
}

/// Everything a scenario plays with. Nodes are counted from 0 here: node 0 is `n1`.
pub struct Bed {
    // Dropped from top to bottom: programs before the machines they run on, and the run, which clears the rest, last.
    agents: Vec<Option<Process>>,
    frozen: Vec<bool>,
    /// The etcd cluster.
    pub cluster: Cluster,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The client's namespace.
    pub client: Netns,
    client_interface: Interface,
    /// The switch.
    pub switch: Switch,
    run: Run,
}

/// Raises a bed, plays a scenario on it and takes it down again, also when it fails; then the last lines of all logs are shown.
pub fn scenario(name: &str, setup: Setup, play: impl FnOnce(&mut Bed) -> Result<()>) -> Result<()> {
    if !privilege::granted(name)? {
        return Ok(());
    }
    let mut bed = Bed::raise(setup)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut bed))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        Err(anyhow!("panicked: {}", text.unwrap_or("no message")))
    });
    if outcome.is_err() {
        say::line(&bed.log_tails());
    }
    let down = bed.take_down();
    outcome.with_context(|| format!("scenario {name}"))?;
    down.with_context(|| format!("taking down the bed of {name}"))
}

impl Bed {
    /// Waits for its turn on this machine and builds everything; agents are started by the scenario.
    pub fn raise(setup: Setup) -> Result<Bed> {
        let run = Run::begin()?;
        let networks: &[&str] = if setup.mgmt { &[LAN, MGMT] } else { &[LAN] };
        let switch = Switch::create(&run, networks)?;
        let mut nodes = Vec::new();
        for number in 1..=setup.nodes {
            let mut node = Node::create(&run, number)?;
            node.plug_lan(&switch)?;
            if setup.mgmt {
                node.plug_mgmt(&switch)?;
            }
            if setup.two_cables && number == 1 {
                node.plug_lan_twice(&switch)?;
            }
            nodes.push(node);
        }
        let client = run.namespace("client")?;
        let client_interface = switch.plug(
            &client,
            "client",
            "eth0",
            LAN,
            MacAddr::new(0x02, 0x76, 0x69, 77, 0, 200),
            CLIENT,
        )?;
        let cluster = Cluster::plan(&nodes, setup.security, run.directory())?;
        let agents = nodes.iter().map(|_| None).collect();
        let frozen = vec![false; nodes.len()];
        let mut bed = Bed {
            agents,
            frozen,
            cluster,
            nodes,
            client,
            client_interface,
            switch,
            run,
        };
        if setup.etcd
            && let Err(error) = bed.cluster.start_all()
        {
            say::line(&bed.log_tails());
            return Err(error.context("starting etcd"));
        }
        Ok(bed)
    }

    /// Starts the agent of one node.
    pub fn start_agent(&mut self, index: usize, config: &AgentConfig) -> Result<()> {
        let file = config.write(&self.nodes[index], &self.cluster)?;
        let agent = agent::start(&self.nodes[index], &file, &config.environment)?;
        self.agents[index] = Some(agent);
        Ok(())
    }

    /// Starts the agent of one node from another program file, with the configuration that it has.
    pub fn start_program(&mut self, index: usize, program: &Path) -> Result<()> {
        let node = &self.nodes[index];
        let config = node.directory().join("agent.yaml");
        let arguments = ["run", "--config", &config.to_string_lossy()];
        self.agents[index] = Some(agent::start_program(node, program, &arguments, AGENT_LOG)?);
        Ok(())
    }

    /// What the agents of one node have written to their log so far.
    pub fn agent_log(&self, index: usize) -> Result<String> {
        let log = self.nodes[index].directory().join(AGENT_LOG);
        let bytes = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Starts every node's agent.
    pub fn start_agents(&mut self, config: &AgentConfig) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|index| self.start_agent(index, config))
    }

    /// The agent's process of one node.
    pub fn agent(&mut self, index: usize) -> Result<&mut Process> {
        let name = self.nodes[index].name();
        self.agents[index]
            .as_mut()
            .with_context(|| format!("no agent was started on {name}"))
    }

    /// What the agent of a node says of itself.
    pub fn status(&self, index: usize) -> Result<Status> {
        agent::status(&self.nodes[index])
    }

    /// What `vip-agent status` on a node prints.
    pub fn status_text(&self, index: usize) -> Result<String> {
        agent::status_text(&self.nodes[index])
    }

    /// The node whose agent says that it owns a shared IP with its gate open. Nodes whose agents do not answer are passed over.
    pub fn owner_of(&self, vip: IpAddr) -> Result<Option<usize>> {
        let mut owners = Vec::new();
        for index in 0..self.nodes.len() {
            let Ok(status) = self.status_if_up(index) else {
                continue;
            };
            let vip = status.vip(vip)?;
            if vip.role() == "owner" && vip.gate() != "closed" {
                owners.push(index);
            }
        }
        if owners.len() > 1 {
            bail!("more than one node says that it owns {vip}: {owners:?}");
        }
        Ok(owners.first().copied())
    }

    /// Waits until a node owns a shared IP, and all these others know it as the owner.
    pub fn settled(&self, vip: IpAddr, others: &[usize], within: Duration) -> Result<usize> {
        wait::until(
            &format!("one owner of {vip} that all of {others:?} know"),
            within,
            || {
                let Some(owner) = self.owner_of(vip)? else {
                    return Ok(None);
                };
                let name = self.nodes[owner].name();
                for index in others.iter().filter(|index| **index != owner) {
                    let status = self.status(*index)?;
                    if status.vip(vip)?.owner() != Some(name) {
                        return Ok(None);
                    }
                }
                Ok(Some(owner))
            },
        )
    }

    /// Waits for an owner other than `old`.
    pub fn next_owner(&self, vip: IpAddr, old: usize, within: Duration) -> Result<usize> {
        let name = self.nodes[old].name();
        wait::until(
            &format!("an owner of {vip} other than {name}"),
            within,
            || Ok(self.owner_of(vip)?.filter(|owner| *owner != old)),
        )
    }

    /// Starts a probe for some shared IPs, at the default tick.
    pub fn probe(&self, vips: &[IpAddr]) -> Result<Probe> {
        self.probe_every(vips, TICK)
    }

    /// Starts a probe for some shared IPs.
    pub fn probe_every(&self, vips: &[IpAddr], tick: Duration) -> Result<Probe> {
        let sources = self.nodes.iter().flat_map(|node| {
            node.on(LAN).map(|interface| Source {
                node: node.name().to_owned(),
                mac: interface.mac,
            })
        });
        Probe::start(Plan {
            netns: self.client.clone(),
            interface: self.client_interface.name.clone(),
            asker: Asker {
                mac: self.client_interface.mac,
                addresses: self.client_interface.addresses,
                nobody: NOBODY,
            },
            vips: vips.to_vec(),
            nodes: sources.collect(),
            tick,
        })
    }

    /// Listens at the switch to what every node says in the neighbour protocols.
    pub fn tap(&self) -> Result<Tap> {
        let mut ports = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for interface in node.on(LAN) {
                ports.push((index, self.switch.listen(interface)?));
            }
        }
        Tap::start(ports)
    }

    /// A socket that sends frames of the client's.
    pub fn client_socket(&self) -> Result<PacketSocket> {
        let name = &self.client_interface.name;
        self.client.within(|| PacketSocket::open(name, 0))
    }

    /// The client's end of its cable.
    pub fn client_interface(&self) -> &Interface {
        &self.client_interface
    }

    /// Plugs in a machine that is no member.
    pub fn stranger(&self) -> Result<Stranger> {
        let netns = self.run.namespace("stranger")?;
        let interface = self.switch.plug(
            &netns,
            "stranger",
            "eth0",
            LAN,
            MacAddr::new(0x52, 0x54, 0, 77, 0, 66),
            STRANGER,
        )?;
        Ok(Stranger::new(netns, interface))
    }

    /// The last lines of every log, for a failure's report.
    pub fn log_tails(&self) -> String {
        let mut tails = Vec::new();
        for (node, etcd) in self.nodes.iter().zip(self.cluster.logs()) {
            tails.push(log_tail(
                &format!("etcd on {}", node.name()),
                &etcd,
                TAIL_LINES.1,
            ));
        }
        for node in &self.nodes {
            let agent = node.directory().join(AGENT_LOG);
            tails.push(log_tail(
                &format!("agent on {}", node.name()),
                &agent,
                TAIL_LINES.0,
            ));
        }
        tails.retain(|tail| !tail.is_empty());
        tails.join("\n")
    }

    /// The directory with everything of this run.
    pub fn directory(&self) -> &Path {
        self.run.directory()
    }

    /// Kills everything at once and takes all away.
    pub fn take_down(mut self) -> Result<()> {
        for index in 0..self.nodes.len() {
            self.kill_all_on(index)?;
        }
        self.run.clear()
    }

    /// Leaves everything standing, and running, after we are gone.
    pub fn leave(mut self) -> Result<()> {
        self.run.keep()?;
        self.cluster.leave();
        self.agents.iter_mut().flatten().for_each(Process::leave);
        Ok(())
    }

    /// SIGKILL to all programs on a node at one instant; returns once they are gone.
    pub(crate) fn kill_all_on(&mut self, index: usize) -> Result<()> {
        let mut agent = self.agents[index].take();
        self.frozen[index] = false;
        if let Some(agent) = &mut agent {
            agent.strike()?;
        }
        if let Some(etcd) = self.cluster.process(index) {
            etcd.strike()?;
        }
        agent.map_or(Ok(()), |mut agent| agent.kill())?;
        self.cluster.stop(index)
    }

    pub(crate) fn forget_agent(&mut self, index: usize) {
        self.agents[index] = None;
        self.frozen[index] = false;
    }

    pub(crate) fn note_frozen(&mut self, index: usize, frozen: bool) {
        self.frozen[index] = frozen;
    }

    /// A stopped agent answers no status, and asking a frozen one would hang.
    fn status_if_up(&self, index: usize) -> Result<Status> {
        if self.agents[index].is_none() || self.frozen[index] {
            bail!("{} runs no agent", self.nodes[index].name());
        }
        self.status(index)
    }
}
