//! What this host's own programs know of shared IPs that other machines have: set from etcd's record at
//! once, for an announcement may be lost, and a cache may hold the old owner for a minute.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Interfaces;
use crate::{
    election::{Gate, Mac},
    net::NeighbourManager,
};

pub(super) struct Neighbours {
    orders: UnboundedSender<Order>,
    /// Where the owners are, as etcd has it.
    owners: BTreeMap<IpAddr, Mac>,
    /// What the kernel was told of them.
    told: BTreeMap<IpAddr, (u32, Mac)>,
}

#[derive(Debug)]
enum Order {
    Set(IpAddr, u32, Mac),
    Remove(IpAddr, u32),
}

impl Neighbours {
    /// A task carries out the orders, each after the one before.
    pub fn new(manager: NeighbourManager) -> Self {
        let (orders, to_do) = unbounded_channel();
        tokio::spawn(carry_out(manager, to_do));
        Self {
            orders,
            owners: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// A gate says who the owner is: this machine, another, or nobody. Of nobody the kernel goes on to
    /// think what it thought.
    pub fn gate_set(&mut self, vip: IpAddr, gate: Gate, interfaces: &Interfaces) {
        let link = interfaces.of(vip).and_then(|one| one.link.as_ref());
        let is_ours = |mac: Mac| link.is_some_and(|link| link.mac == mac.0);
        match gate {
            Gate::Closed {
                owner: Some(mac), ..
            } if mac != Mac::default() && !is_ours(mac) => {
                self.owners.insert(vip, mac);
                self.tell(vip, mac, interfaces);
            }
            _ => {
                self.owners.remove(&vip);
                self.told.remove(&vip);
                if let (true, Some(link)) = (gate.is_open(), link) {
                    self.order(Order::Remove(vip, link.ifindex));
                }
            }
        }
    }

    /// It is no longer configured. What the kernel knows of it goes with time.
    pub fn forget(&mut self, vip: IpAddr) {
        self.owners.remove(&vip);
        self.told.remove(&vip);
    }

    /// Tells the kernel what it does not know yet. It forgets all of a link that goes down, and of IPv6
    /// where that is switched off.
    pub fn look_at(&mut self, interfaces: &Interfaces) {
        for (vip, mac) in self.owners.clone() {
            self.tell(vip, mac, interfaces);
        }
    }

    fn tell(&mut self, vip: IpAddr, mac: Mac, interfaces: &Interfaces) {
        let interface = interfaces.of(vip).filter(|one| one.speaks(vip));
        let link = interface.and_then(|one| one.link.as_ref());
        let Some(link) = link.filter(|link| link.up) else {
            self.told.remove(&vip);
            return;
        };
        let known = self.told.insert(vip, (link.ifindex, mac));
        if known != Some((link.ifindex, mac)) {
            self.order(Order::Set(vip, link.ifindex, mac));
        }
    }

    fn order(&self, order: Order) {
        // At the end of the process nobody is there to do it.
        let _ = self.orders.send(order);
    }
}

/// What fails costs a question on the wire, and no more.
async fn carry_out(mut manager: NeighbourManager, mut orders: UnboundedReceiver<Order>) {
    let mut was_told = false;
    while let Some(order) = orders.recv().await {
        let done = match order {
            Order::Set(vip, ifindex, mac) => manager.set(ifindex, vip, mac.0).await,
            Order::Remove(vip, ifindex) => manager.remove(ifindex, vip).await,
        };
        match done {
            Ok(()) => tracing::debug!(?order, "neighbour told"),
            Err(error) if was_told => tracing::debug!(%error, "this host asks the wire instead"),
            Err(error) => {
                was_told = true;
                tracing::warn!(%error, "this host asks the wire instead (said once)");
            }
        }
    }
}
