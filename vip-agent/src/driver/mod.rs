//! The one loop: events into the election, its actions out to etcd, kernel and network.
//!
//! One turn of it:
//! 1. wait for the first of: a signal, an answer from etcd or netlink, a change of the
//!    interfaces, a verdict of a health check, an event of the kernel program, a request of a person, a time that has come;
//! 2. make an event of it, and hand that to the election;
//! 3. do the actions in their order; what is done on the spot (kernel maps) answers at once,
//!    the rest is sent off and answers in a later turn.
//!
//! All that may be dropped when another branch of the `select!` wins is cancel-safe: channels,
//! signals, and streams that keep their place.

mod addresses;
mod advice;
mod announcements;
mod conflicts;
mod control;
mod duplicates;
mod health;
mod hooks;
mod interfaces;
mod log;
mod members;
mod neighbours;
mod reload;
mod sockets;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    clock,
    config::{Config, Flags, OnStop},
    control::Asked,
    dataplane::{self, Dataplane},
    election::{
        Action, BootInstant, DEFEND_INTERVAL, Election, Event, Exit, Fitness, Mac, Report, Stop,
    },
    health::Verdict,
    net::{self, Announcer, LinkMonitor, Removed},
    state::StateDir,
    status::ConflictResponse,
    store::{Store, StoreEvent},
};
use addresses::{Addresses, Answer, Outcome};
use advice::Advice;
use announcements::Announcements;
use conflicts::Conflicts;
use control::{Errands, Written};
use duplicates::Duplicates;
use health::Checks;
use hooks::Hooks;
use interfaces::{Interface, Interfaces};
use neighbours::Neighbours;
use reload::{Reading, Serials};
pub use start::run;
use status::Since;
use upkeep::Upkeep;

/// How often interfaces are looked at although nothing was heard of them: a monitor may miss one.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// When they could not be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// What goes before it.
    pub flags: Flags,
}

/// Everything the loop holds.
struct Driver {
    config: Config,
    source: Source,
    readings: mpsc::UnboundedSender<Reading>,
    serials: Serials,
    state: StateDir,
    election: Election,
    store: Store,
    dataplane: Option<Dataplane>,
    interfaces: Interfaces,
    addresses: Addresses,
    announcements: Announcements,
    conflicts: Conflicts,
    errands: Errands,
    hooks: Hooks,
    since: Since,
    upkeep: Upkeep,
    advice: Advice,
    duplicates: Duplicates,
    neighbours: Neighbours,
    checks: Checks,
    /// What the election was told of each shared IP.
    told: BTreeMap<IpAddr, Fitness>,
    /// The shared IPs whose gates an earlier process left open.
    inherited: BTreeSet<IpAddr>,
}

/// What the loop waits for.
struct Inputs {
    store: mpsc::UnboundedReceiver<StoreEvent>,
    addresses: mpsc::UnboundedReceiver<Answer>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    control: mpsc::Receiver<Asked>,
    written: mpsc::UnboundedReceiver<Written>,
    links: LinkMonitor,
    release: Signals,
    hold: Signal,
    reload: Signal,
    readings: mpsc::UnboundedReceiver<Reading>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// One thing that came.
enum Input {
    Event(Event),
    Address(Answer),
    Refused(crate::store::StoreError),
    LinksChanged(Vec<Removed>),
    Checked(Verdict),
    Kernel(Result<vip_common::abi::Event, dataplane::DataplaneError>),
    Asked(Asked),
    Written(Written),
    Reload,
    Read(Reading),
    Time,
}

impl Inputs {
    async fn next(
        &mut self,
        dataplane: Option<&mut Dataplane>,
        on_stop: OnStop,
        wake: Duration,
    ) -> Input {
        let kernel = async {
            match dataplane {
                Some(dataplane) => dataplane.next_event().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.release.recv() => Input::Event(Event::Stop(match on_stop {
                OnStop::Release => Stop::Release,
                OnStop::Hold => Stop::Hold,
            })),
            _ = self.hold.recv() => Input::Event(Event::Stop(Stop::Hold)),
            Some(answer) = self.addresses.recv() => Input::Address(answer),
            Some(event) = self.store.recv() => match event {
                StoreEvent::Election(event) => Input::Event(event),
                StoreEvent::Refused(error) => Input::Refused(error),
            },
            () = tokio::time::sleep(wake) => Input::Time,
            Some(verdict) = self.verdicts.recv() => Input::Checked(verdict),
            removed = self.links.changed() => Input::LinksChanged(removed),
            Some(written) = self.written.recv() => Input::Written(written),
            Some(asked) = self.control.recv() => Input::Asked(asked),
            _ = self.reload.recv() => Input::Reload,
            Some(reading) = self.readings.recv() => Input::Read(reading),
            event = kernel => Input::Kernel(event),
        }
    }

    /// Whether the next input is there, and of the kind that comes in numbers.
    fn has_answers(&self) -> bool {
        !self.addresses.is_empty() || !self.store.is_empty()
    }
}

impl Signals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Driver {
    /// Runs until the election says that all is done.
    async fn run(&mut self, inputs: &mut Inputs) -> anyhow::Result<Exit> {
        self.advice.look_at(&self.interfaces);
        loop {
            let wake = self.next_wake().saturating_since(clock::boot_now());
            let input = inputs
                .next(self.dataplane.as_mut(), self.config.on_stop, wake)
                .await;
            let exit = match input {
                Input::Event(event) => self.feed(event)?,
                Input::Refused(error) => {
                    if !self.store.health().ever_answered {
                        return Err(anyhow!(error).context("etcd refuses this agent"));
                    }
                    tracing::error!(%error, "etcd refuses this agent");
                    None
                }
                Input::Address(answer) => self.take_in_answer(answer)?,
                Input::LinksChanged(removed) => self.look_at_interfaces(&removed).await?,
                Input::Checked(verdict) => {
                    self.checks.take_in(verdict);
                    self.tell_fitness()?
                }
                Input::Kernel(event) => self.take_in_kernel_event(event)?,
                Input::Asked(asked) => self.take_in_request(asked).await?,
                Input::Written(written) => {
                    self.errands.take_in(written);
                    None
                }
                Input::Reload => {
                    self.read_config(None);
                    None
                }
                Input::Read(reading) => self.take_in_config(reading).await?,
                Input::Time => self.on_time().await?,
            };
            let exit = match exit {
                None => self.look_at_errands()?,
                exit => exit,
            };
            // What is at hand already may ask for more of the same.
            let more_to_come = exit.is_none() && inputs.has_answers();
            self.store.flush_unless(more_to_come);
            if !more_to_come {
                self.keep_note();
            }
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
    }

    /// Hands the election an event, and those that follow from it at once.
    fn feed(&mut self, event: Event) -> anyhow::Result<Option<Exit>> {
        let mut events = VecDeque::from([event]);
        let mut exit = None;
        while let Some(event) = events.pop_front() {
            for action in self.election.handle(clock::boot_now(), event) {
                if let Action::Exit(how) = action {
                    exit = Some(how);
                    continue;
                }
                events.extend(self.perform(action)?);
            }
        }
        Ok(exit)
    }

    fn take_in_answer(&mut self, answer: Answer) -> anyhow::Result<Option<Exit>> {
        match self.addresses.take_in(answer, &self.interfaces) {
            Outcome::Told(event) => {
                if matches!(event, Event::AddressRemoved(_)) {
                    // A link that was held on to for its sake may be let go of.
                    self.since.look_again_at = clock::boot_now();
                }
                self.feed(event)
            }
            Outcome::PutBack(vip) => {
                self.announcements.repeat(vip, &self.interfaces);
                Ok(None)
            }
            Outcome::Nothing => Ok(None),
        }
    }

    /// Does one action. What it answers on the spot is returned.
    ///
    /// An error here ends the agent: if the kernel's maps can't be written, no gate can be shut by
    /// us, but without renewals all of them shut at the deadline that stands there.
    fn perform(&mut self, action: Action) -> anyhow::Result<Option<Event>> {
        tracing::trace!(?action, "performing");
        let Some(action) = self.store.request(action) else {
            return Ok(None);
        };
        match action {
            Action::SetLeaseDeadline(at) => {
                if let Some(dataplane) = &mut self.dataplane {
                    dataplane.set_lease_deadline_ns(at.as_ns());
                }
                self.announcements.deadline_moved(at);
                self.addresses.deadline_moved(at, &self.interfaces);
            }
            Action::SetGate(vip, gate) => {
                self.interfaces
                    .set_gate(vip, gate, self.dataplane.as_mut())?;
                self.neighbours.gate_set(vip, gate, &self.interfaces);
                return Ok(Some(Event::GateSet(vip)));
            }
            Action::SetMembers(macs) => {
                if let Some(dataplane) = &mut self.dataplane {
                    let macs: Vec<[u8; 6]> = macs.iter().map(|mac| mac.0).collect();
                    dataplane.set_members(&macs)?;
                }
            }
            Action::AddAddress(vip) => self.addresses.add(vip, &self.interfaces),
            Action::RemoveAddress(vip) => self.addresses.remove(vip, &self.interfaces),
            Action::Announce(vip) => self.announcements.begin(vip, &self.interfaces),
            Action::Silence(vip) => self.announcements.end(vip),
            Action::Probe(vip) => self.announcements.probe(vip, &self.interfaces),
            Action::Forget(vip) => {
                self.tell_hooks_of_the_end_of(vip);
                if let Some(dataplane) = &mut self.dataplane {
                    dataplane.remove_gate(vip)?;
                }
                self.neighbours.forget(vip);
                self.told.remove(&vip);
                if self.interfaces.forget(vip, self.dataplane.as_mut()) {
                    // What carried shared IPs may be one to guard now.
                    self.since.look_again_at = clock::boot_now();
                }
            }
            Action::Remember(lease) => self.remember(lease),
            Action::Note(history) => self.upkeep.note = Some(history),
            Action::Report(report) => {
                let interfaces = &self.interfaces;
                log::write(&report, |vip| {
                    interfaces.of(vip).is_none_or(Interface::is_fenced)
                });
                self.tell_hooks(&report);
                if let Report::Conflict { vip, response, .. } = report {
                    self.answer_conflict(vip, response.into());
                }
                self.since.note(&report);
                self.errands.note(&report);
            }
            other => unreachable!("{other:?} is the store's or the loop's"),
        }
        Ok(None)
    }

    async fn on_time(&mut self) -> anyhow::Result<Option<Exit>> {
        let now = clock::boot_now();
        self.announcements.send_due(now, &self.interfaces);
        self.addresses.on_time(now, &self.interfaces);
        if now >= self.since.look_again_at
            && let Some(exit) = self.look_at_interfaces(&[]).await?
        {
            return Ok(Some(exit));
        }
        if now >= self.upkeep.due
            && let Some(exit) = self.look_after().await?
        {
            return Ok(Some(exit));
        }
        // A tick says that all is told: what came while the loop was busy, or the process stopped, too.
        while let Some(event) = self.dataplane.as_mut().and_then(Dataplane::event_at_hand) {
            if let Some(exit) = self.take_in_kernel_event(Ok(event))? {
                return Ok(Some(exit));
            }
        }
        // It looks at all that it has, so it is not called upon for what is not its own: announcements
        // of many wake this loop each millisecond.
        let is_due = |at| at <= clock::boot_now();
        if !self.election.next_timeout().is_some_and(is_due) {
            return Ok(None);
        }
        self.feed(Event::Tick)
    }

    /// `removed`: the addresses that were heard to go.
    async fn look_at_interfaces(&mut self, removed: &[Removed]) -> anyhow::Result<Option<Exit>> {
        let links = match net::links().await {
            Ok(links) => links,
            // What was known goes on to hold; an owner is not to fall over a full socket.
            Err(error) => {
                tracing::warn!(%error, "the interfaces could not be listed; looking again soon");
                self.since.look_again_at = clock::boot_now() + LOOK_AGAIN;
                return Ok(None);
            }
        };
        self.since.look_again_at = clock::boot_now() + LOOK_ANYWAY;
        let in_use = self.addresses.interfaces_in_use();
        self.interfaces
            .refresh(&links, &in_use, self.dataplane.as_mut())?;
        if self.interfaces.awaits_attachment() {
            self.since.look_again_at = clock::boot_now() + LOOK_AGAIN;
        }
        self.advice.look_at(&self.interfaces);
        self.duplicates.look_at(&self.interfaces, &links);
        self.neighbours.look_at(&self.interfaces);
        if let Some(exit) = self.tell_fitness()? {
            return Ok(Some(exit));
        }
        // Last, for what is being given up is not put back.
        self.addresses.compare(&links, removed, &self.interfaces);
        Ok(None)
    }

    /// Somebody claims a shared IP. On another interface than its own that may be another network's
    /// affair: it is told, and changes nothing.
    fn take_in_kernel_event(
        &mut self,
        event: Result<vip_common::abi::Event, dataplane::DataplaneError>,
    ) -> anyhow::Result<Option<Exit>> {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "an event of the kernel program could not be read");
                return Ok(None);
            }
        };
        // The buffer is pinned: what a process did not live to read, the next one finds there.
        let age = clock::boot_now().as_ns().saturating_sub(event.at_ns);
        if Duration::from_nanos(age) > DEFEND_INTERVAL {
            return Ok(None);
        }
        let (vip, mac) = (event.vip.ip(), Mac(event.mac));
        self.conflicts
            .hear(&event, self.interfaces.name_of(event.ifindex));
        if self.interfaces.carries(event.ifindex, vip) {
            self.feed(Event::Conflict { vip, mac })
        } else {
            self.answer_conflict(vip, ConflictResponse::Elsewhere);
            Ok(None)
        }
    }

    fn answer_conflict(&mut self, vip: std::net::IpAddr, response: ConflictResponse) {
        let now = clock::boot_now();
        let role = self.election.role(vip, now);
        let owner = role.and_then(|(_, owner, _)| owner);
        self.conflicts.answer(vip, response, owner, now);
        self.tell_hooks_of_conflicts();
    }

    fn next_wake(&self) -> BootInstant {
        let times = [
            self.election.next_timeout(),
            self.announcements.next_due(),
            self.addresses.next_due(),
            self.errands.next_due(),
            Some(self.since.look_again_at),
            Some(self.upkeep.due),
        ];
        times
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.since.look_again_at)
    }
}

fn signals() -> std::io::Result<(Signals, Signal, Signal)> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    Ok((
        Signals {
            terminate,
            interrupt,
        },
        signal(SignalKind::user_defined1())?,
        signal(SignalKind::hangup())?,
    ))
}
