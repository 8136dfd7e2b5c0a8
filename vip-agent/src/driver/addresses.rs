//! The shared IPs' addresses on their interfaces: added with a finite lifetime, renewed and put back
//! for as long as they are wanted, and taken off where they were put.
//!
//! Of each address one order is outstanding at a time, so that a renewal that is still on its way
//! cannot bring back what a removal took off.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;

use super::{BootInstant, Interfaces, clock, sockets};
use crate::{
    election::Event,
    net::{AddressManager, Link, NetError, Removed},
};

/// The shortest lifetime of an address behind a gate: the gate guards it, so this only bounds how
/// long a dead agent's address lies about.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(10);
/// After an order that was refused.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Between two times that an address is put back: somebody may take it off each time.
const PUT_BACK_EVERY: Duration = Duration::from_millis(100);
/// Between two complaints of that.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Addresses {
    manager: AddressManager,
    answers: UnboundedSender<Answer>,
    ttl: Duration,
    deadline: BootInstant,
    held: BTreeMap<IpAddr, Held>,
}

/// The kernel's answer to an order, or why none was given.
pub(super) struct Answer {
    vip: IpAddr,
    order: Order,
    /// The interface that the address is or may be on.
    ifindex: Option<u32>,
    result: Result<(), String>,
}

/// How long an address lives that nobody renews.
pub(super) fn longest_lifetime(ttl: Duration) -> Duration {
    SHORTEST_LIFETIME.max(3 * ttl)
}

/// What an answer means to the rest of the agent.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is returned"
)]
pub(super) enum Outcome {
    /// Something that the election waits for.
    Told(Event),
    /// What somebody took off is there again.
    PutBack(IpAddr),
    /// Nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Put,
    TakeOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// It is to be there.
    Keep,
    /// It is to go.
    Gone,
    /// The election has not said yet: an earlier process left it, or it could not be put.
    Unsaid,
}

/// One address that is on an interface, or may be.
struct Held {
    /// Where; `None` before it was put anywhere.
    ifindex: Option<u32>,
    goal: Goal,
    /// Whether the kernel has it, as far as it has said.
    is_there: bool,
    /// Whether the election waits for an answer.
    awaited: bool,
    /// Whether somebody took it off, and it is not back.
    lost: bool,
    /// Whether the last order failed, and that was said.
    failing: bool,
    outstanding: bool,
    /// When the next order is due.
    due: BootInstant,
    put_at: BootInstant,
    complained_at: Option<BootInstant>,
}

impl Held {
    fn new(ifindex: Option<u32>, goal: Goal) -> Self {
        Self {
            ifindex,
            goal,
            is_there: false,
            awaited: false,
            lost: false,
            failing: false,
            outstanding: false,
            due: BootInstant::BOOT,
            put_at: BootInstant::BOOT,
            complained_at: None,
        }
    }

    fn next_due(&self) -> Option<BootInstant> {
        (self.goal != Goal::Unsaid && !self.outstanding).then_some(self.due)
    }
}

/// Why an address can't be put on an interface now.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    /// It has to go without a gate, and by the lease only for less than the kernel can count.
    #[error("the lease has too little time left to go without a gate")]
    TooLate,
    #[error("{0}")]
    Here(String),
}

impl Addresses {
    pub fn new(manager: AddressManager, ttl: Duration, answers: UnboundedSender<Answer>) -> Self {
        Self {
            manager,
            answers,
            ttl,
            deadline: BootInstant::BOOT,
            held: BTreeMap::new(),
        }
    }

    /// An earlier process may have left the address on this interface.
    pub fn inherit(&mut self, vip: IpAddr, ifindex: u32) {
        self.held
            .insert(vip, Held::new(Some(ifindex), Goal::Unsaid));
    }

    /// The addresses that are on an interface, or for all that is known may be.
    pub fn lingering(&self) -> Vec<IpAddr> {
        self.held.keys().copied().collect()
    }

    /// The interfaces that addresses are on, or may be.
    pub fn interfaces_in_use(&self) -> BTreeSet<u32> {
        let used = self.held.values().filter(|held| held.goal != Goal::Unsaid);
        used.filter_map(|held| held.ifindex).collect()
    }

    /// → `AddressAdded` or `AddressFailed`
    pub fn add(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let held = self
            .held
            .entry(vip)
            .or_insert_with(|| Held::new(None, Goal::Keep));
        held.goal = Goal::Keep;
        held.awaited = true;
        held.due = clock::boot_now();
        self.give_order(vip, interfaces);
    }

    /// → `AddressRemoved`, once the kernel no longer has it: a removal that fails is tried again for
    /// as long as it does, which the address' lifetime bounds.
    pub fn remove(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let link = interfaces.of(vip).and_then(|one| one.link.as_ref());
        let ifindex = link.map(|link| link.ifindex);
        let held = self
            .held
            .entry(vip)
            .or_insert_with(|| Held::new(ifindex, Goal::Gone));
        held.goal = Goal::Gone;
        held.awaited = true;
        held.failing = false;
        held.due = clock::boot_now();
        self.give_order(vip, interfaces);
    }

    /// Takes in an answer, and goes on from there.
    pub fn take_in(&mut self, answer: Answer, interfaces: &Interfaces) -> Outcome {
        let now = clock::boot_now();
        let Answer {
            vip,
            order,
            ifindex,
            result,
        } = answer;
        let Some(held) = self.held.get_mut(&vip) else {
            return Outcome::Nothing;
        };
        held.outstanding = false;
        held.ifindex = ifindex;
        let awaited = std::mem::take(&mut held.awaited);
        let was_failing = std::mem::replace(&mut held.failing, result.is_err());
        let is_past = match held.goal {
            Goal::Keep => order == Order::TakeOff,
            Goal::Gone => order == Order::Put,
            Goal::Unsaid => false,
        };
        if is_past {
            // Something else is wanted since.
            held.awaited = awaited;
            held.failing = false;
            held.due = now;
            self.give_order(vip, interfaces);
            return Outcome::Nothing;
        }
        match (order, result) {
            (Order::Put, Ok(())) => {
                held.is_there = true;
                let was_lost = std::mem::take(&mut held.lost);
                if awaited {
                    return Outcome::Told(Event::AddressAdded(vip));
                }
                if was_lost {
                    tracing::info!(%vip, "its address is back");
                    return Outcome::PutBack(vip);
                }
            }
            (Order::Put, Err(error)) if awaited => {
                tracing::error!(%vip, error, "the address could not be added");
                held.goal = Goal::Unsaid;
                return Outcome::Told(Event::AddressFailed(vip, error));
            }
            (Order::Put, Err(error)) => {
                held.due = now + TRY_AGAIN;
                if !was_failing {
                    tracing::warn!(%vip, error, "the address could not be renewed; trying again");
                }
            }
            (Order::TakeOff, Ok(())) => {
                if was_failing {
                    tracing::info!(%vip, "the address is off at last");
                }
                self.held.remove(&vip);
                return Outcome::Told(Event::AddressRemoved(vip));
            }
            (Order::TakeOff, Err(error)) => {
                held.awaited = awaited;
                held.due = now + TRY_AGAIN;
                if !was_failing {
                    tracing::error!(%vip, error, "the address could not be taken off; trying again");
                }
            }
        }
        Outcome::Nothing
    }

    /// Compares what should be there with what is, and puts back what is not. `removed` says who
    /// took it, as far as that was heard.
    pub fn compare(&mut self, links: &[Link], removed: &[Removed], interfaces: &Interfaces) {
        let now = clock::boot_now();
        let mut gone = Vec::new();
        let there = links
            .iter()
            .flat_map(|link| link.shared.iter().map(|vip| (Some(link.ifindex), *vip)));
        let there: BTreeSet<(Option<u32>, IpAddr)> = there.collect();
        for (vip, held) in &mut self.held {
            let is_there = there.contains(&(held.ifindex, *vip));
            if held.goal == Goal::Keep && held.is_there && !is_there {
                held.is_there = false;
                held.lost = true;
                held.due = now.max(held.put_at + PUT_BACK_EVERY);
                gone.push(*vip);
            }
        }
        for vip in gone {
            let by = removed.iter().rfind(|removed| removed.ip == vip);
            self.complain(vip, by.map(|removed| removed.by.as_str()), interfaces, now);
            self.give_order(vip, interfaces);
        }
    }

    /// Without a gate the address itself must not outlive the lease.
    pub fn deadline_moved(&mut self, deadline: BootInstant, interfaces: &Interfaces) {
        self.deadline = deadline;
        let now = clock::boot_now();
        for (vip, held) in &mut self.held {
            let unfenced = interfaces.of(*vip).is_some_and(|one| !one.is_fenced());
            if unfenced && held.goal == Goal::Keep {
                held.due = now;
            }
        }
        self.on_time(now, interfaces);
    }

    pub fn next_due(&self) -> Option<BootInstant> {
        self.held.values().filter_map(Held::next_due).min()
    }

    /// Gives the orders that are due.
    pub fn on_time(&mut self, now: BootInstant, interfaces: &Interfaces) {
        let is_due = |held: &Held| held.next_due().is_some_and(|due| due <= now);
        let due: Vec<IpAddr> = self
            .held
            .iter()
            .filter(|(_, held)| is_due(held))
            .map(|(vip, _)| *vip)
            .collect();
        for vip in due {
            self.give_order(vip, interfaces);
        }
    }

    /// Gives the order that is due for one address, unless another is outstanding.
    fn give_order(&mut self, vip: IpAddr, interfaces: &Interfaces) {
        let now = clock::boot_now();
        let destination = self.destination(vip, interfaces, now);
        let renew_at = now + longest_lifetime(self.ttl) / 3;
        let Some(held) = self.held.get_mut(&vip) else {
            return;
        };
        if held.outstanding || held.due > now {
            return;
        }
        held.outstanding = true;
        let (manager, answers) = (self.manager.clone(), self.answers.clone());
        match (held.goal, destination) {
            (Goal::Unsaid, _) => held.outstanding = false,
            (Goal::Gone, _) => {
                let ifindex = held.ifindex;
                tokio::spawn(async move {
                    let result = match ifindex {
                        Some(ifindex) => manager.remove(ifindex, vip).await,
                        None => Ok(()),
                    };
                    let result = result.map_err(|error| error.to_string());
                    if result.is_ok() {
                        sockets::end_connections(vip).await;
                    }
                    answer(&answers, vip, Order::TakeOff, ifindex, result);
                });
            }
            (Goal::Keep, Ok((ifindex, lifetime))) => {
                // One that failed duplicate address detection is beyond renewal.
                let anew = interfaces.has_failed_dad(vip).then_some(ifindex);
                let off_first = held.ifindex.filter(|other| *other != ifindex).or(anew);
                held.due = renew_at;
                held.put_at = now;
                tokio::spawn(async move {
                    let (at, result) = put(&manager, vip, off_first, ifindex, lifetime).await;
                    let result = result.map_err(|error| error.to_string());
                    answer(&answers, vip, Order::Put, Some(at), result);
                });
            }
            (Goal::Keep, Err(Obstacle::TooLate)) => {
                // The next renewal that counts is followed by another try.
                held.outstanding = false;
                held.due = renew_at;
            }
            (Goal::Keep, Err(Obstacle::Here(why))) => {
                let ifindex = held.ifindex;
                answer(&answers, vip, Order::Put, ifindex, Err(why));
            }
        }
    }

    /// Where and for how long it may be put now.
    fn destination(
        &self,
        vip: IpAddr,
        interfaces: &Interfaces,
        now: BootInstant,
    ) -> Result<(u32, Duration), Obstacle> {
        let here = |why: String| Obstacle::Here(why);
        let interface = interfaces
            .of(vip)
            .ok_or_else(|| here("it is not configured".to_owned()))?;
        let name = &interface.config.name;
        let link = interface
            .link
            .as_ref()
            .ok_or_else(|| here(format!("there is no interface {name}")))?;
        if !interface.is_fenced() {
            let left = self.until_deadline(now).ok_or(Obstacle::TooLate)?;
            return Ok((link.ifindex, left));
        }
        if interface.attachment.is_none() {
            return Err(here(format!("nothing guards interface {name} yet")));
        }
        Ok((link.ifindex, longest_lifetime(self.ttl)))
    }

    /// Whole seconds, and the kernel looks for expired addresses up to one second late.
    fn until_deadline(&self, now: BootInstant) -> Option<Duration> {
        let left = self
            .deadline
            .saturating_since(now)
            .as_secs()
            .saturating_sub(1);
        (left > 0).then(|| Duration::from_secs(left))
    }

    fn complain(
        &mut self,
        vip: IpAddr,
        by: Option<&str>,
        interfaces: &Interfaces,
        now: BootInstant,
    ) {
        let destination = self.destination(vip, interfaces, now);
        let Some(held) = self.held.get_mut(&vip) else {
            return;
        };
        if let Err(why) = destination {
            tracing::info!(%vip, %why, "its address has gone and is not put back now");
            return;
        }
        let often = held
            .complained_at
            .is_some_and(|at| now.saturating_since(at) < COMPLAIN_EVERY);
        let by = by.unwrap_or("somebody");
        if often {
            tracing::debug!(%vip, by, "its address was taken off; it is put back");
        } else {
            held.complained_at = Some(now);
            tracing::warn!(
                %vip,
                by,
                "its address was taken off; it is put back (said at most once a minute)"
            );
        }
    }
}

/// Puts the address on an interface, and off another one, or the same, first. Returns where it is, or
/// may be.
async fn put(
    manager: &AddressManager,
    vip: IpAddr,
    off_first: Option<u32>,
    ifindex: u32,
    lifetime: Duration,
) -> (u32, Result<(), NetError>) {
    if let Some(other) = off_first
        && let Err(error) = manager.remove(other, vip).await
    {
        return (other, Err(error));
    }
    (ifindex, manager.add(ifindex, vip, lifetime).await)
}

fn answer(
    answers: &UnboundedSender<Answer>,
    vip: IpAddr,
    order: Order,
    ifindex: Option<u32>,
    result: Result<(), String>,
) {
    // At its end the loop no longer listens.
    let _ = answers.send(Answer {
        vip,
        order,
        ifindex,
        result,
    });
}
