//! A machine on the switch that runs no agent and takes the shared IP for its own.

use std::net::IpAddr;

use anyhow::Result;
use pnet::util::MacAddr;

use crate::netns::Netns;
use crate::probe::socket::PacketSocket;
use crate::switch::Interface;
use crate::wire::asked::{Arp, Neighbour};

/// A machine that is no member.
pub struct Stranger {
    netns: Netns,
    interface: Interface,
}

impl Stranger {
    /// The machine in this namespace, plugged in by this interface.
    pub fn new(netns: Netns, interface: Interface) -> Stranger {
        Stranger { netns, interface }
    }

    /// Its MAC.
    pub fn mac(&self) -> MacAddr {
        self.interface.mac
    }

    /// Configures the address: from then on its kernel answers for it. It does not announce it.
    pub fn take(&self, vip: IpAddr) -> Result<()> {
        match vip {
            IpAddr::V4(_) => self.address("add", vip, &[]),
            IpAddr::V6(_) => self.address("add", vip, &["nodad"]),
        }
    }

    /// Takes it off again.
    pub fn leave(&self, vip: IpAddr) -> Result<()> {
        self.address("delete", vip, &[])
    }

    /// Announces the address, whether it has it or not.
    pub fn announce(&self, vip: IpAddr) -> Result<()> {
        let name = &self.interface.name;
        let socket = self.netns.within(|| PacketSocket::open(name, 0))?;
        socket.send(&announcement(self.mac(), vip));
        Ok(())
    }

    fn address(&self, order: &str, vip: IpAddr, flags: &[&str]) -> Result<()> {
        let address = match vip {
            IpAddr::V4(_) => format!("{vip}/24"),
            IpAddr::V6(_) => format!("{vip}/64"),
        };
        let mut arguments = vec!["address", order, &address, "dev", &self.interface.name];
        arguments.extend(flags);
        self.netns.ip(&arguments).map(drop)
    }
}

/// A gratuitous ARP request (RFC 5227, section 3) or an unsolicited Neighbour Advertisement (RFC 4861, section 7.2.6).
pub fn announcement(mac: MacAddr, vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => Arp::request((mac, vip), vip).frame(),
        IpAddr::V6(vip) => Neighbour::announcement(mac, vip).frame(),
    }
}
