//! A node: a namespace with its interfaces, its directories, and the programs that run there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use pnet::util::MacAddr;

use crate::addresses::Addresses;
use crate::command;
use crate::netns::Netns;
use crate::run::Run;
use crate::switch::{Interface, LAN, MGMT, Switch};

/// A machine that may own the shared IP.
pub struct Node {
    number: u8,
    name: String,
    netns: Netns,
    directory: PathBuf,
    bpffs: PathBuf,
    interfaces: Vec<Interface>,
}

impl Node {
    /// Node `n<number>` (counted from 1), without interfaces.
    pub fn create(run: &Run, number: u8) -> Result<Node> {
        let name = format!("n{number}");
        let bpffs = run.bpffs(&name)?;
        let directory = run.directory().join(&name);
        Ok(Node {
            number,
            netns: run.namespace(&name)?,
            name,
            directory,
            bpffs,
            interfaces: Vec::new(),
        })
    }

    /// Plugs it into the LAN as `eth0`, 10.77.0.<number> and fd77::<number>.
    pub fn plug_lan(&mut self, switch: &Switch) -> Result<()> {
        self.plug(switch, "eth0", LAN, Addresses::new(77, self.number))
    }

    /// Plugs it into the network for etcd alone as `eth1`, 10.78.0.<number> and fd78::<number>.
    pub fn plug_mgmt(&mut self, switch: &Switch) -> Result<()> {
        self.plug(switch, "eth1", MGMT, Addresses::new(78, self.number))
    }

    /// A second cable into the LAN: `eth2`, 10.77.0.<number + 10> and fd77::<number + 10>.
    pub fn plug_lan_twice(&mut self, switch: &Switch) -> Result<()> {
        self.plug(switch, "eth2", LAN, Addresses::new(77, self.number + 10))
    }

    /// Its name: `n1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// All its interfaces.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// An interface by name.
    pub fn interface(&self, name: &str) -> Result<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.name == name)
            .ok_or_else(|| anyhow!("{} has no {name}", self.name))
    }

    /// After `eth0` was put under another interface by hand: the probe asks for that one's MAC, and the cable is the same.
    pub fn lan_is_now(&mut self, name: &str, mac: MacAddr) {
        for interface in self.interfaces.iter_mut().filter(|one| one.name == "eth0") {
            name.clone_into(&mut interface.name);
            interface.mac = mac;
        }
    }

    /// The interfaces on one network.
    pub fn on(&self, network: &str) -> impl Iterator<Item = &Interface> {
        self.interfaces
            .iter()
            .filter(move |interface| interface.network == network)
    }

    /// The address that etcd and its peers use: on the network for etcd alone, if there is one.
    pub fn etcd_address(&self) -> Result<Ipv4Addr> {
        let interface = self.on(MGMT).chain(self.on(LAN)).next();
        interface
            .map(|interface| interface.addresses.v4)
            .ok_or_else(|| anyhow!("{} has no interface yet", self.name))
    }

    /// Where its files lie: `/run/vip-testbed/<run>/<node>`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The agent's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The agent's directory of pins. It lies inside the bpffs, as `/sys/fs/bpf/vip-agent` does, so the agent makes and removes it.
    pub fn bpf_dir(&self) -> PathBuf {
        self.bpffs.join("vip-agent")
    }

    /// The bpffs that [`Node::bpf_dir`] lies in.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The names of the pins that stand, relative to the bpffs.
    pub fn pins(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        collect(&self.bpf_dir(), &mut found)?;
        Ok(found
            .iter()
            .map(|path| {
                path.strip_prefix(&self.bpffs)
                    .unwrap_or(path)
                    .display()
                    .to_string()
            })
            .collect())
    }

    /// Whether the kernel has this address on any of the node's interfaces.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let listing = self.netns.ip(&["-o", "address", "show"])?;
        let inet = match address {
            IpAddr::V4(address) => format!(" inet {address}/"),
            IpAddr::V6(address) => format!(" inet6 {address}/"),
        };
        Ok(listing.lines().any(|line| line.contains(&inet)))
    }

    /// What a power cut does to memory: pins, programs, addresses, and `/run` are gone, and its cables hang loose until [`Node::boot`].
    pub fn lose_memory(&self) -> Result<()> {
        remove_all(&self.bpf_dir())?;
        remove_all(&self.state_dir())?;
        for interface in &self.interfaces {
            self.netns.ip(&["link", "delete", &interface.name])?;
        }
        Ok(())
    }

    /// After [`Node::lose_memory`]: the same interfaces with the same MAC addresses again, with nothing attached to them.
    pub fn boot(&mut self, switch: &Switch) -> Result<()> {
        for interface in std::mem::take(&mut self.interfaces) {
            self.plug(
                switch,
                &interface.name,
                interface.network,
                interface.addresses,
            )?;
        }
        Ok(())
    }

    /// Has an interface leave VLAN tags in the frames that it receives.
    pub fn leave_vlan_tags(&self, interface: &str) -> Result<()> {
        let arguments = ["-K", interface, "rxvlan", "off"];
        command::run_in(&self.netns, "ethtool", &arguments).map(drop)
    }

    /// Deletes an interface with all that is on it.
    pub fn delete_interface(&self, name: &str) -> Result<()> {
        self.netns.ip(&["link", "delete", name]).map(drop)
    }

    /// After [`Node::delete_interface`]: one of the same name, MAC and address, but a new one.
    pub fn make_interface_anew(&mut self, switch: &Switch, name: &str) -> Result<()> {
        let Interface {
            network, addresses, ..
        } = *self.interface(name)?;
        self.interfaces.retain(|interface| interface.name != name);
        self.plug(switch, name, network, addresses)
    }

    fn plug(
        &mut self,
        switch: &Switch,
        name: &str,
        network: &'static str,
        addresses: Addresses,
    ) -> Result<()> {
        let [_, second, third, last] = addresses.v4.octets();
        let mac = MacAddr::new(0x02, 0x76, 0x69, second, third, last);
        let interface = switch.plug(&self.netns, &self.name, name, network, mac, addresses)?;
        self.interfaces.push(interface);
        Ok(())
    }
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn remove_all(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
