//! The switch: a namespace with one bridge per network, and the ports that the machines' cables end in.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use pnet::util::MacAddr;

use crate::addresses::Addresses;
use crate::netns::Netns;
use crate::probe::socket::PacketSocket;
use crate::run::Run;
use crate::xdp_pass::XdpPass;

/// The network that the shared IP and the client are on.
pub const LAN: &str = "lan";
/// A second network, for etcd alone.
pub const MGMT: &str = "mgmt";

/// A switch of any number of networks.
pub struct Switch {
    netns: Netns,
    pass: XdpPass,
    pins: PathBuf,
}

/// One end of a cable, as the machine sees it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name on the machine.
    pub name: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its own addresses.
    pub addresses: Addresses,
    /// The network it is on: [`LAN`] or [`MGMT`].
    pub network: &'static str,
    port: String,
}

impl Switch {
    /// A switch without ports.
    pub fn create(run: &Run, networks: &[&str]) -> Result<Switch> {
        let pins = run.bpffs("switch")?;
        let netns = run.namespace("switch")?;
        for network in networks {
            // No spanning tree and no forwarding delay: a port forwards at once when its cable is back. The probe sends from a MAC address of its
            // own in every round, so what the bridge learns must age fast.
            netns.ip(&[
                "link",
                "add",
                network,
                "type",
                "bridge",
                "stp_state",
                "0",
                "forward_delay",
                "0",
                "mcast_snooping",
                "0",
                "ageing_time",
                "1000",
            ])?;
            netns.ip(&["link", "set", network, "up"])?;
        }
        Ok(Switch {
            netns,
            pass: XdpPass::load()?,
            pins,
        })
    }

    /// Plugs a machine in: makes the cable, its interface over there (with its addresses, up) and the port here.
    pub fn plug(
        &self,
        machine: &Netns,
        label: &str,
        name: &str,
        network: &'static str,
        mac: MacAddr,
        addresses: Addresses,
    ) -> Result<Interface> {
        let port = format!("{label}-{name}");
        let mac_text = mac.to_string();
        self.netns.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            name,
            "address",
            &mac_text,
            "netns",
            machine.name(),
        ])?;
        self.netns
            .ip(&["link", "set", &port, "master", network, "up"])?;
        let pin = self.pins.join(&port);
        if pin.exists() {
            fs::remove_file(&pin)?;
        }
        self.netns.within(|| {
            let ifindex =
                if_nametoindex(port.as_str()).with_context(|| format!("looking up port {port}"))?;
            self.pass.attach(ifindex, &pin)
        })?;
        let Addresses { v4, v6 } = addresses;
        machine.ip(&["address", "add", &format!("{v4}/24"), "dev", name])?;
        // There at once, without the kernel's look for duplicates.
        machine.ip(&["address", "add", &format!("{v6}/64"), "dev", name, "nodad"])?;
        machine.ip(&["link", "set", name, "up"])?;
        Ok(Interface {
            name: name.to_owned(),
            mac,
            addresses,
            network,
            port,
        })
    }

    /// Takes the port down: the machine at the other end loses its carrier.
    pub fn port_down(&self, interface: &Interface) -> Result<()> {
        self.netns
            .ip(&["link", "set", &interface.port, "down"])
            .map(drop)
    }

    /// Brings the port up again.
    pub fn port_up(&self, interface: &Interface) -> Result<()> {
        self.netns
            .ip(&["link", "set", &interface.port, "up"])
            .map(drop)
    }

    /// Loses every frame to and from the machine, while its carrier stays.
    pub fn port_black_holed(&self, interface: &Interface) -> Result<()> {
        self.netns
            .ip(&["link", "set", &interface.port, "nomaster"])
            .map(drop)
    }

    /// Forwards its frames again.
    pub fn port_forwarding(&self, interface: &Interface) -> Result<()> {
        self.netns
            .ip(&["link", "set", &interface.port, "master", interface.network])
            .map(drop)
    }

    /// Listens at the port to what the machine sends.
    pub fn listen(&self, interface: &Interface) -> Result<PacketSocket> {
        self.netns
            .within(|| PacketSocket::incoming(&interface.port))
    }

    /// The port's name in the switch's namespace: what is sent there, the machine gets.
    pub fn port<'i>(&self, interface: &'i Interface) -> &'i str {
        &interface.port
    }

    /// The namespace that the bridges live in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }
}
