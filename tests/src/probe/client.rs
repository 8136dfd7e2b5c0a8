//! The probe's thread.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use pnet::packet::ethernet::EthernetPacket;

use super::frames::{Asker, Frames, Question, frames};
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
    /// As whom.
    pub asker: Asker,
    /// The shared IPs, of either family.
    pub vips: Vec<IpAddr>,
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
    vips: Vec<IpAddr>,
    started: Instant,
    /// One for each shared IP.
    records: Mutex<Vec<Records>>,
    stop: AtomicBool,
}

impl Probe {
    /// Starts asking; returns when the first round has been sent.
    pub fn start(plan: Plan) -> Result<Probe> {
        let records = plan
            .vips
            .iter()
            .map(|vip| Records::new(*vip, plan.nodes.clone()))
            .collect();
        let shared = Arc::new(Shared {
            vips: plan.vips.clone(),
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
            Ok(probe.mark()?.0 > 0)
        })?;
        Ok(probe)
    }

    /// The round that is next: reports since this mark are about what comes after.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(rounds(&self.records()?)))
    }

    /// The shared IPs that it asks for.
    pub fn vips(&self) -> &[IpAddr] {
        &self.shared.vips
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
        let records = from(&self.records()?, mark);
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
            let sent = records.iter().filter_map(Records::last_sent).max();
            (rounds(&records), sent)
        };
        let decided_at = sent.unwrap_or_default() + GIVEN_UP;
        let what = "the last round to be answered, or lost";
        wait::until_true(what, 10 * GIVEN_UP, || {
            Ok(self.shared.started.elapsed() > decided_at)
        })?;
        let now = self.shared.started.elapsed();
        let mut records = from(&self.records()?, mark);
        for one in &mut records {
            one.rounds.truncate(end.saturating_sub(mark.0));
        }
        Ok(Report::of(&records, now))
    }

    /// Waits for a stretch of time, from now on, in which the ordinary client is answered without an outage for so long, by each shared IP.
    pub fn steady(&self, unbroken: Duration, within: Duration) -> Result<()> {
        let called = self.shared.started.elapsed();
        let what = format!("the client to be answered without a gap for {unbroken:?}");
        wait::until_true(&what, within + unbroken, || {
            let since = self.shared.started.elapsed().saturating_sub(unbroken);
            if since < called {
                return Ok(false);
            }
            let first = self.records()?.iter().map(|one| one.first_at(since)).max();
            let report = self.since(Mark(first.unwrap_or_default()))?;
            Ok(report.answered() > 0 && report.outages().next().is_none())
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

    fn records(&self) -> Result<MutexGuard<'_, Vec<Records>>> {
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
    fn lock(&self) -> MutexGuard<'_, Vec<Records>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn rounds(records: &[Records]) -> usize {
    records.first().map_or(0, |one| one.rounds.len())
}

fn from(records: &[Records], mark: Mark) -> Vec<Records> {
    records.iter().map(|one| one.from(mark.0)).collect()
}

struct Sockets {
    send: PacketSocket,
    receive: Vec<PacketSocket>,
    /// In the order of the shared IPs.
    lines: Vec<Line>,
}

/// One shared IP's questions.
struct Line {
    frames: Box<dyn Frames>,
    icmp: IcmpSocket,
}

fn open(plan: &Plan) -> Result<Sockets> {
    let ethertypes = [libc::ETH_P_ARP, libc::ETH_P_IP, libc::ETH_P_IPV6];
    let receive = ethertypes.map(|ethertype| PacketSocket::open(&plan.interface, ethertype));
    let lines = plan.vips.iter().map(|vip| {
        Ok(Line {
            frames: frames(&plan.asker, *vip),
            icmp: IcmpSocket::connect(*vip)?,
        })
    });
    Ok(Sockets {
        send: PacketSocket::open(&plan.interface, 0)?,
        receive: receive.into_iter().collect::<Result<_>>()?,
        lines: lines.collect::<Result<_>>()?,
    })
}

fn ask(plan: &Plan, shared: &Shared) -> Result<()> {
    plan.netns.enter()?;
    in_real_time();
    let sockets = open(plan)?;
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        send_round(plan, shared, &sockets).context("the probe")?;
        // A tick that was missed is left out: catching up in a burst would measure nothing.
        next = (next + plan.tick).max(Instant::now());
        receive_until(next, shared, &sockets)?;
    }
    receive_until(Instant::now() + PATIENCE, shared, &sockets)
}

/// One round: for each shared IP all questions leave back to back, at one instant, so that no handover fits between them.
fn send_round(plan: &Plan, shared: &Shared, sockets: &Sockets) -> Result<()> {
    let number = {
        let mut records = shared.lock();
        let number = rounds(&records);
        // For all at once: a round that is counted for one is for the others.
        for one in records.iter_mut() {
            one.rounds.push(Round {
                sent_ns: shared.now_ns(),
                ..Round::default()
            });
        }
        u32::try_from(number).context("more than 2^32 rounds")?
    };
    for (at, line) in sockets.lines.iter().enumerate() {
        let look_up = line.frames.look_up(number);
        let to_each = plan.nodes.iter();
        let echoes: Vec<_> = to_each
            .map(|node| line.frames.echo_request(number, node.mac))
            .collect();
        let ordinary = line.frames.ordinary(number);

        let began_ns = shared.now_ns();
        line.icmp.send(&ordinary);
        sockets.send.send(&look_up);
        for echo in &echoes {
            sockets.send.send(echo);
        }
        let ended_ns = shared.now_ns();
        if let Some(round) = shared.lock()[at].rounds.last_mut() {
            round.sent_ns = began_ns;
            round.burst_ns = ended_ns - began_ns;
        }
    }
    Ok(())
}

fn receive_until(until: Instant, shared: &Shared, sockets: &Sockets) -> Result<()> {
    loop {
        drain(shared, sockets)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let frames = sockets.receive.iter().map(AsFd::as_fd);
        let ordinary = sockets.lines.iter().map(|line| line.icmp.as_fd());
        let readable = |socket| PollFd::new(socket, PollFlags::POLLIN);
        let mut waiting: Vec<PollFd<'_>> = frames.chain(ordinary).map(readable).collect();
        match ppoll(&mut waiting, Some(TimeSpec::from(left)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("waiting for answers"),
        }
    }
}

fn drain(shared: &Shared, sockets: &Sockets) -> Result<()> {
    let mut buffer = [0; 2048];
    for (at, line) in sockets.lines.iter().enumerate() {
        while let Some(message) = line.icmp.receive(&mut buffer)? {
            let at_ns = shared.now_ns();
            if let Some(answer) = line.frames.ordinary_answer(message)
                && answer.question == Question::Ordinary
            {
                shared.lock()[at].answered(answer.round, at_ns);
            }
        }
    }
    for socket in &sockets.receive {
        while let Some(frame) = socket.receive(&mut buffer)? {
            let at_ns = shared.now_ns();
            let Some(ethernet) = EthernetPacket::new(frame) else {
                continue;
            };
            for (at, line) in sockets.lines.iter().enumerate() {
                match line.frames.answer(&ethernet) {
                    Ok(Some(answer)) => {
                        shared.lock()[at].seen(answer, ethernet.get_source(), at_ns);
                    }
                    Ok(None) => {}
                    Err(oddity) => shared.lock()[at].oddities.push(oddity),
                }
            }
        }
    }
    Ok(())
}

/// Puts the calling thread ahead of the ordinary ones, so that a busy machine neither stretches a round nor delays the clock reading. Where that is not
/// allowed the probe measures all the same, and `longest_pause` tells how well.
pub(crate) fn in_real_time() {
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: sched_setscheduler reads one sched_param, which outlives the call; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
}
