//! What goes wrong in the world, done to a node of the bed.

use std::net::IpAddr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::agent::AgentConfig;
use crate::bed::Bed;
use crate::switch::{Interface, LAN, MGMT};

/// How an etcd member falls ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illness {
    /// SIGKILL; its connections are reset.
    Killed,
    /// SIGSTOP; its connections stand.
    Frozen,
    /// No frame of its node's etcd network comes through, and the carrier stays. Only where etcd has a network of its own.
    BlackHoled,
}

/// How long an agent may take to end after it was asked to.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);

impl Bed {
    /// Asks the agent to stop (SIGTERM) and waits for its end.
    pub fn stop_agent(&mut self, index: usize) -> Result<ExitStatus> {
        self.end_agent(index, Signal::SIGTERM)
    }

    /// Has the agent leave everything as it is (SIGUSR1) and waits for its end.
    pub fn hold_agent(&mut self, index: usize) -> Result<ExitStatus> {
        self.end_agent(index, Signal::SIGUSR1)
    }

    /// Kills the agent (SIGKILL); its pins stand.
    pub fn kill_agent(&mut self, index: usize) -> Result<()> {
        self.agent(index)?.kill()?;
        self.forget_agent(index);
        Ok(())
    }

    /// Stops the agent's clock, so to speak (SIGSTOP).
    pub fn freeze_agent(&mut self, index: usize) -> Result<()> {
        self.agent(index)?.signal(Signal::SIGSTOP)?;
        self.note_frozen(index, true);
        Ok(())
    }

    /// Lets a frozen agent go on (SIGCONT).
    pub fn thaw_agent(&mut self, index: usize) -> Result<()> {
        self.agent(index)?.signal(Signal::SIGCONT)?;
        self.note_frozen(index, false);
        Ok(())
    }

    /// Cuts a node's power: its links go dark, all its programs die, and its memory (pins, addresses, `/run`) is lost.
    pub fn cut_power(&mut self, index: usize) -> Result<()> {
        // The links first, so that no program's death is heard of.
        self.each_port(index, None, false)?;
        self.kill_all_on(index)?;
        self.nodes[index].lose_memory()
    }

    /// Gives a node its power back: interfaces, etcd with the data it had, agent.
    pub fn restore_power(&mut self, index: usize, config: &AgentConfig) -> Result<()> {
        self.boot(index)?;
        self.cluster.ready()?;
        self.start_agent(index, config)
    }

    /// Gives a node its power back, and no more than its interfaces and its etcd member; returns before that is ready.
    pub fn boot(&mut self, index: usize) -> Result<()> {
        let Bed { nodes, switch, .. } = self;
        nodes[index].boot(switch)?;
        self.cluster.start(index)
    }

    /// Waits for the end of an agent that was asked to end.
    pub fn agent_ends(&mut self, index: usize) -> Result<ExitStatus> {
        let status = self.agent(index)?.wait(STOP_WITHIN)?;
        self.forget_agent(index);
        Ok(status)
    }

    /// Deletes an address that a node has on its first interface.
    pub fn delete_address(&self, index: usize, address: IpAddr) -> Result<()> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let address = format!("{address}/{length}");
        let netns = self.nodes[index].netns();
        netns
            .ip(&["address", "del", &address, "dev", "eth0"])
            .map(drop)
    }

    /// Pulls a node's cables out of the LAN.
    pub fn pull_cable(&self, index: usize) -> Result<()> {
        self.each_port(index, Some(LAN), false)
    }

    /// Plugs them in again.
    pub fn plug_cable(&self, index: usize) -> Result<()> {
        self.each_port(index, Some(LAN), true)
    }

    /// Cuts a node off from etcd's own network, and from nothing else.
    pub fn cut_off_from_etcd(&self, index: usize) -> Result<()> {
        self.each_port(index, Some(MGMT), false)
    }

    /// Mends that.
    pub fn reconnect_to_etcd(&self, index: usize) -> Result<()> {
        self.each_port(index, Some(MGMT), true)
    }

    /// Makes an etcd member ill.
    pub fn sicken_etcd(&mut self, index: usize, illness: Illness) -> Result<()> {
        match illness {
            Illness::Killed => self.cluster.stop(index),
            Illness::Frozen => self.cluster.signal(index, Signal::SIGSTOP),
            Illness::BlackHoled => {
                let mut cables = self.nodes[index].on(MGMT);
                cables.try_for_each(|cable| self.switch.port_black_holed(cable))
            }
        }
    }

    /// Has it well again, and waits until all members are.
    pub fn heal_etcd(&mut self, index: usize, illness: Illness) -> Result<()> {
        match illness {
            Illness::Killed => self.cluster.start(index)?,
            Illness::Frozen => self.cluster.signal(index, Signal::SIGCONT)?,
            Illness::BlackHoled => {
                let mut cables = self.nodes[index].on(MGMT);
                cables.try_for_each(|cable| self.switch.port_forwarding(cable))?;
            }
        }
        self.cluster.ready()
    }

    fn end_agent(&mut self, index: usize, signal: Signal) -> Result<ExitStatus> {
        self.agent(index)?.signal(signal)?;
        self.agent_ends(index)
            .with_context(|| format!("after {signal}"))
    }

    fn each_port(&self, index: usize, network: Option<&str>, up: bool) -> Result<()> {
        let hit =
            |interface: &&Interface| network.is_none_or(|network| interface.network == network);
        for interface in self.nodes[index].interfaces().iter().filter(hit) {
            if up {
                self.switch.port_up(interface)?
            } else {
                self.switch.port_down(interface)?
            }
        }
        Ok(())
    }
}
