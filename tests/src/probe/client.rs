//! The probe's thread.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use pnet::util::MacAddr;

use super::frames::{Question, answer, arp_request, echo_request, icmp_echo, ip_answer};
use super::records::{Records, Round, Source};
use super::report::{GIVEN_UP, PATIENCE, Report};
use super::socket::{IcmpSocket, PacketSocket, Receive};
use crate::netns::Netns;
use crate::wait;

/// How often the probe asks unless told otherwise.
pub const TICK: Duration = Duration::from_millis(2);

/// Whom to ask, from where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The client's namespace.
    pub netns: Netns,
    /// Its interface.
    pub interface: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its own address: the source of the echo requests.
    pub address: Ipv4Addr,
    /// An address that nobody has: the sender of the ARP requests, so that no neighbour cache learns a round's MAC address for the client.
    pub arp_sender: Ipv4Addr,
    /// The shared IP.
    pub vip: Ipv4Addr,
    /// The nodes' MAC addresses on the client's network.
    pub nodes: Vec<Source>,
    /// The time between two rounds.
    pub tick: Duration,
}

/// A running probe. Dropping it ends it.
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A place in the sequence of rounds, to report from.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

struct Shared {
    started: Instant,
    records: Mutex<Records>,
    stop: AtomicBool,
}

impl Probe {
    /// Starts asking; returns when the first round has been sent.
    pub fn start(plan: Plan) -> Result<Probe> {
        let records = Records::new(plan.nodes.clone());
        let shared = Arc::new(Shared {
            started: Instant::now(),
            records: Mutex::new(records),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || ask(&plan, &for_thread))?;
        let probe = Probe {
            shared,
            thread: Some(thread),
        };
        wait::until_true("the probe's first round", Duration::from_secs(5), || {
            Ok(!probe.records()?.rounds.is_empty())
        })?;
        Ok(probe)
    }

    /// The round that is next: reports since this mark are about what comes after.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(self.records()?.rounds.len()))
    }

    /// What the times in reports count from.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// The findings so far, from a mark on.
    pub fn since(&self, mark: Mark) -> Result<Report> {
        // The clock first: a round that comes while the lock is waited for must not look unanswered.
        let now = self.shared.started.elapsed();
        // Judged outside the lock, which the probe's thread needs every tick.
        let records = self.records()?.from(mark.0);
        Ok(Report::of(&records, now))
    }

    /// The findings so far, from the start on.
    pub fn so_far(&self) -> Result<Report> {
        self.since(Mark(0))
    }

    /// As [`Probe::since`], up to the last round so far, once no round in it can be answered any more: what [`Report::missed`] wants.
    pub fn decided_since(&self, mark: Mark) -> Result<Report> {
        let (end, sent) = {
            let records = self.records()?;
            (records.rounds.len(), records.last_sent())
        };
        let decided_at = sent.unwrap_or_default() + GIVEN_UP;
        let what = "the last round to be answered, or lost";
        wait::until_true(what, 10 * GIVEN_UP, || {
            Ok(self.shared.started.elapsed() > decided_at)
        })?;
        let now = self.shared.started.elapsed();
        let mut records = self.records()?.from(mark.0);
        records.rounds.truncate(end.saturating_sub(mark.0));
        Ok(Report::of(&records, now))
    }

    /// Waits for a stretch of time, from now on, in which the ordinary client is answered without an outage for so long.
    pub fn steady(&self, unbroken: Duration, within: Duration) -> Result<()> {
        let called = self.shared.started.elapsed();
        let what = format!("the client to be answered without a gap for {unbroken:?}");
        wait::until_true(&what, within + unbroken, || {
            let since = self.shared.started.elapsed().saturating_sub(unbroken);
            if since < called {
                return Ok(false);
            }
            let first = self.records()?.first_at(since);
            let report = self.since(Mark(first))?;
            Ok(report.answered > 0 && report.outages.is_empty())
        })
    }

    /// Ends the probe and returns all its findings.
    pub fn finish(mut self) -> Result<Report> {
        self.end()?;
        self.so_far()
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("the probe panicked"))?,
            None => Ok(()),
        }
    }

    fn records(&self) -> Result<MutexGuard<'_, Records>> {
        let ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if ended && !self.shared.stop.load(Ordering::SeqCst) {
            bail!("the probe has ended by itself");
        }
        Ok(self.shared.lock())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // `finish` is where errors are told.
        let _ = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

struct Sockets {
    arp: PacketSocket,
    ip: PacketSocket,
    icmp: IcmpSocket,
}

fn ask(plan: &Plan, shared: &Shared) -> Result<()> {
    plan.netns.enter()?;
    in_real_time();
    let sockets = Sockets {
        arp: PacketSocket::open(&plan.interface, libc::ETH_P_ARP)?,
        ip: PacketSocket::open(&plan.interface, libc::ETH_P_IP)?,
        icmp: IcmpSocket::connect(plan.vip)?,
    };
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        send_round(plan, shared, &sockets).context("the probe")?;
        // A tick that was missed is left out: catching up in a burst would measure nothing.
        next = (next + plan.tick).max(Instant::now());
        receive_until(next, plan, shared, &sockets)?;
    }
    receive_until(Instant::now() + PATIENCE, plan, shared, &sockets)
}

/// One round at one instant: all its questions leave back to back, so that no handover fits between them.
fn send_round(plan: &Plan, shared: &Shared, sockets: &Sockets) -> Result<()> {
    let number = {
        let mut records = shared.lock();
        records.rounds.push(Round {
            sent_ns: shared.now_ns(),
            ..Round::default()
        });
        u32::try_from(records.rounds.len() - 1).context("more than 2^32 rounds")?
    };
    let arp = arp_request(number, plan.arp_sender, plan.vip);
    let echoes = plan
        .nodes
        .iter()
        .map(|node| echo_request(number, (plan.mac, plan.address), node.mac, plan.vip));
    let echoes: Vec<_> = echoes.collect();
    let ordinary = icmp_echo(Question::Ordinary, number);

    let began_ns = shared.now_ns();
    sockets.icmp.send(&ordinary);
    sockets.arp.send(&arp);
    for echo in &echoes {
        sockets.ip.send(echo);
    }
    let ended_ns = shared.now_ns();
    if let Some(round) = shared.lock().rounds.last_mut() {
        round.sent_ns = began_ns;
        round.burst_ns = ended_ns - began_ns;
    }
    Ok(())
}

fn receive_until(until: Instant, plan: &Plan, shared: &Shared, sockets: &Sockets) -> Result<()> {
    loop {
        drain(plan, shared, sockets)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let readable = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut waiting = [
            readable(sockets.arp.as_fd()),
            readable(sockets.ip.as_fd()),
            readable(sockets.icmp.as_fd()),
        ];
        match ppoll(&mut waiting, Some(TimeSpec::from(left)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("waiting for answers"),
        }
    }
}

fn drain(plan: &Plan, shared: &Shared, sockets: &Sockets) -> Result<()> {
    let mut buffer = [0; 2048];
    while let Some(packet) = sockets.icmp.receive(&mut buffer)? {
        let at_ns = shared.now_ns();
        if let Some(answer) = ip_answer(packet, plan.vip)
            && answer.question == Question::Ordinary
        {
            shared.lock().answered(answer.round, at_ns);
        }
    }
    for socket in [&sockets.arp, &sockets.ip] {
        while let Some(frame) = socket.receive(&mut buffer)? {
            let at_ns = shared.now_ns();
            match answer(frame, plan.vip) {
                Ok(Some((answer, from))) => shared.lock().seen(answer, from, at_ns),
                Ok(None) => {}
                Err(oddity) => shared.lock().oddities.push(oddity),
            }
        }
    }
    Ok(())
}

/// Puts the calling thread ahead of the ordinary ones, so that a busy machine neither stretches a round nor delays the clock reading. Where that is not
/// allowed the probe measures all the same, and `longest_pause` tells how well.
fn in_real_time() {
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: sched_setscheduler reads one sched_param, which outlives the call; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
}
