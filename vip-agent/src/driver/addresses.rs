//! The shared IPs' addresses on their interfaces: added with a finite lifetime, and renewed for as
//! long as the agent lives, so that none outlives it for long.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::mpsc::UnboundedSender;

use super::{BootInstant, Interfaces, clock};
use crate::{election::Event, net::AddressManager};

/// The shortest lifetime of an address behind a gate: the gate guards it, so this only bounds how
/// long a dead agent's address lies about.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);

pub(super) struct Addresses {
    manager: AddressManager,
    events: UnboundedSender<Event>,
    ttl: Duration,
    deadline: BootInstant,
    held: BTreeMap<IpAddr, Held>,
}

struct Held {
    renew_at: BootInstant,
}

impl Addresses {
    pub fn new(manager: AddressManager, ttl: Duration, events: UnboundedSender<Event>) -> Self {
        Self {
            manager,
            events,
            ttl,
            deadline: BootInstant::BOOT,
            held: BTreeMap::new(),
        }
    }

    /// Whether the address is (being) kept on its interface.
    pub fn holds(&self, vip: IpAddr) -> bool {
        self.held.contains_key(&vip)
    }

    pub fn add(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let refused = move |why: String| Event::AddressFailed(vip, why);
        let put = self.put(vip, interfaces);
        let (events, manager) = (self.events.clone(), self.manager.clone());
        let (ifindex, lifetime) = match put {
            Ok(put) => put,
            Err(why) => {
                let _ = events.send(refused(why));
                return;
            }
        };
        tokio::spawn(async move {
            let event = match manager.add(ifindex, vip, lifetime).await {
                Ok(()) => Event::AddressAdded(vip),
                Err(error) => {
                    tracing::error!(%vip, %error, "the address could not be added");
                    refused(error.to_string())
                }
            };
            let _ = events.send(event);
        });
    }

    pub fn remove(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        self.held.remove(&vip);
        let link = interfaces
            .of(vip)
            .and_then(|interface| interface.link.as_ref());
        let ifindex = link.map(|link| link.ifindex);
        let (events, manager) = (self.events.clone(), self.manager.clone());
        tokio::spawn(async move {
            if let Some(ifindex) = ifindex
                && let Err(error) = manager.remove(ifindex, vip).await
            {
                // Behind its shut gate it can do no harm on the network, and it expires.
                tracing::error!(%vip, %error, "the address could not be removed");
            }
            let _ = events.send(Event::AddressRemoved(vip));
        });
    }

    pub fn forget(&mut self, vip: IpAddr) {
        self.held.remove(&vip);
    }

    /// Without a gate the address itself must not outlive the lease.
    pub fn deadline_moved(&mut self, deadline: BootInstant, interfaces: &Interfaces) {
        self.deadline = deadline;
        let now = clock::boot_now();
        for (vip, held) in &mut self.held {
            if interfaces
                .of(*vip)
                .is_some_and(|interface| !interface.is_fenced())
            {
                held.renew_at = now;
            }
        }
        self.renew_due(now, interfaces);
    }

    pub fn next_due(&self) -> Option<BootInstant> {
        self.held.values().map(|held| held.renew_at).min()
    }

    pub fn renew_due(&mut self, now: BootInstant, interfaces: &Interfaces) {
        let due: Vec<IpAddr> = self
            .held
            .iter()
            .filter(|(_, held)| held.renew_at <= now)
            .map(|(vip, _)| *vip)
            .collect();
        for vip in due {
            let Ok((ifindex, lifetime)) = self.put(vip, interfaces) else {
                continue;
            };
            let manager = self.manager.clone();
            tokio::spawn(async move {
                if let Err(error) = manager.add(ifindex, vip, lifetime).await {
                    tracing::warn!(%vip, %error, "the address' lifetime could not be renewed");
                }
            });
        }
    }

    /// Where and for how long it is to be put now; notes when to renew it.
    fn put(&mut self, vip: IpAddr, interfaces: &Interfaces) -> Result<(u32, Duration), String> {
        let now = clock::boot_now();
        let interface = interfaces.of(vip).ok_or("it is not configured")?;
        let usual = SHORTEST_LIFETIME.max(3 * self.ttl);
        self.held.insert(
            vip,
            Held {
                renew_at: now + usual / 3,
            },
        );
        let link = interface
            .link
            .as_ref()
            .ok_or("there is no such interface")?;
        let lifetime = if interface.is_fenced() {
            usual
        } else {
            self.until_deadline(now)?
        };
        Ok((link.ifindex, lifetime))
    }

    /// Whole seconds, and the kernel looks for expired addresses up to one second late.
    fn until_deadline(&self, now: BootInstant) -> Result<Duration, String> {
        let left = self
            .deadline
            .saturating_since(now)
            .as_secs()
            .saturating_sub(1);
        if left == 0 {
            return Err("the lease has too little time left to go without a gate".to_owned());
        }
        Ok(Duration::from_secs(left))
    }
}
