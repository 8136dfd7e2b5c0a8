//! What people ask for, and the waiting until it is so.
//!
//! What an errand waits for is looked at after each turn of the loop: it is the election's knowledge, so an answer says
//! what etcd has, and not what was sent there.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::sync::mpsc;

use super::{BootInstant, Driver, clock};
use crate::{
    control::{
        Asked, Drained, Error, ErrorKind, LONGEST_WAIT, Reply, Request, Success, Transferred,
    },
    election::{AskRefused, DrainRecord, Event, Exit, Obstacle, Passage, Progress, Report, a_few},
    net,
};

/// How many may wait at once: each is looked at in every turn.
const MOST: usize = 32;
/// An ask lapses at its owner, who may be another agent, after a while.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The errands that are not done yet.
pub(super) struct Errands {
    all: Vec<Errand>,
    next_id: u64,
    written: mpsc::UnboundedSender<Written>,
}

/// What came of a write that an errand waits for.
pub(super) struct Written {
    errand: u64,
    /// The revision of etcd's at which it is so.
    result: Result<i64, String>,
}

struct Errand {
    id: u64,
    reply: Reply,
    until: BootInstant,
    what: What,
}

enum What {
    Transfer(Transfer),
    Drain(Drain),
    Undrain {
        node: String,
        already: bool,
        written_at: Option<i64>,
    },
}

struct Transfer {
    vip: IpAddr,
    to: String,
    ask_again_at: BootInstant,
    /// Why a hand-over that this node tried came to nothing.
    failure: Option<String>,
}

struct Drain {
    node: String,
    force: bool,
    /// Whether it is not over before the node holds nothing.
    waits: bool,
    already: bool,
    /// The revision of etcd's at which it is drained so.
    written_at: Option<i64>,
    /// What it held.
    total: usize,
    /// What was last told to be left.
    told: Option<usize>,
    /// Since when nobody takes what is left.
    stuck_since: Option<BootInstant>,
}

/// What nobody else can take, and why.
type Stuck = (Vec<IpAddr>, String);

/// What comes of an errand that has come to its end.
type Ended = Result<Success, Error>;

impl Errands {
    /// Without any. What comes of writes is told to `written`.
    pub fn new(written: mpsc::UnboundedSender<Written>) -> Self {
        Self {
            all: Vec::new(),
            next_id: 0,
            written,
        }
    }

    pub fn next_due(&self) -> Option<BootInstant> {
        let due = |errand: &Errand| match &errand.what {
            What::Transfer(transfer) => errand.until.min(transfer.ask_again_at),
            What::Drain(Drain {
                stuck_since: Some(since),
                ..
            }) => errand.until.min(*since + STUCK_FOR),
            What::Drain(_) | What::Undrain { .. } => errand.until,
        };
        self.all.iter().map(due).min()
    }

    /// Keeps what hand-overs come to, for who waits for them.
    pub fn note(&mut self, report: &Report) {
        let Report::HandOver {
            vips,
            to,
            progress: Progress::Failed(why),
            ..
        } = report
        else {
            return;
        };
        for errand in &mut self.all {
            if let What::Transfer(transfer) = &mut errand.what
                && transfer.to == *to
                && vips.contains(&transfer.vip)
            {
                transfer.failure = Some(why.clone());
            }
        }
    }

    pub fn take_in(&mut self, written: Written) {
        let Some(at) = self.all.iter().position(|one| one.id == written.errand) else {
            return;
        };
        let revision = match written.result {
            Ok(revision) => revision,
            Err(error) => {
                let errand = self.all.swap_remove(at);
                return errand.reply.end(Err(Error::new(ErrorKind::Etcd, error)));
            }
        };
        match &mut self.all[at].what {
            What::Drain(Drain { written_at, .. }) | What::Undrain { written_at, .. } => {
                *written_at = Some(revision);
            }
            What::Transfer(_) => {}
        }
    }

    /// Whether somebody waits for this shared IP to go there.
    fn wants(&self, vip: IpAddr, to: &str) -> bool {
        let mut all = self.all.iter();
        all.any(
            |errand| matches!(&errand.what, What::Transfer(one) if one.vip == vip && one.to == to),
        )
    }

    fn add(&mut self, reply: Reply, patience: Duration, what: What) -> u64 {
        self.next_id += 1;
        self.all.push(Errand {
            id: self.next_id,
            reply,
            until: clock::boot_now() + patience.min(LONGEST_WAIT),
            what,
        });
        self.next_id
    }
}

/// What nobody takes for so long, nobody is about to: a member that was just undrained, or came back, would.
const STUCK_FOR: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) async fn take_in_request(&mut self, asked: Asked) -> anyhow::Result<Option<Exit>> {
        let Asked { request, reply } = asked;
        match request {
            Request::Status {} => {
                let links = net::links().await.unwrap_or_default();
                reply.end(Ok(Success::Status(Box::new(self.status(&links)))));
            }
            Request::Members {} => reply.end(Ok(Success::Members(self.members()))),
            Request::Transfer {
                vip,
                to,
                timeout_ms,
            } => return self.begin_transfer(reply, vip, to, Duration::from_millis(timeout_ms)),
            Request::Drain {
                node,
                force,
                wait_ms,
            } => self.begin_drain(reply, node, force, wait_ms.map(Duration::from_millis)),
            Request::Undrain { node } => self.begin_undrain(reply, node),
            Request::Reload {} => self.read_config(Some(reply)),
        }
        Ok(None)
    }

    /// Ends the errands that have come to their end.
    pub(super) fn look_at_errands(&mut self) -> anyhow::Result<Option<Exit>> {
        if self.errands.all.is_empty() {
            return Ok(None);
        }
        let mut exit = None;
        let mut ended_transfers = Vec::new();
        for mut errand in std::mem::take(&mut self.errands.all) {
            if errand.reply.is_in_vain() {
                if let What::Transfer(transfer) = errand.what {
                    ended_transfers.push(transfer);
                }
                continue;
            }
            let is_late = clock::boot_now() >= errand.until;
            let ended = match &mut errand.what {
                What::Transfer(transfer) => {
                    let ended = self.look_at_transfer(transfer, is_late);
                    if ended.is_none() {
                        exit = exit.or(self.keep_asking(transfer)?);
                    }
                    ended
                }
                What::Drain(drain) => self.look_at_drain(drain, &errand.reply, is_late),
                What::Undrain {
                    node,
                    already,
                    written_at,
                } => self.look_at_undrain(node, *already, *written_at, is_late),
            };
            match ended {
                Some(ended) => {
                    errand.reply.end(ended);
                    if let What::Transfer(transfer) = errand.what {
                        ended_transfers.push(transfer);
                    }
                }
                None => self.errands.all.push(errand),
            }
        }
        for Transfer { vip, to, .. } in ended_transfers {
            if !self.errands.wants(vip, &to) {
                exit = exit.or(self.feed(Event::Unask { vip, to })?);
            }
        }
        Ok(exit)
    }

    fn begin_transfer(
        &mut self,
        reply: Reply,
        vip: IpAddr,
        to: String,
        patience: Duration,
    ) -> anyhow::Result<Option<Exit>> {
        let refused = match self.election.may_go(vip, &to) {
            Ok(()) if self.errands.all.len() >= MOST => Err(busy()),
            Ok(()) => Ok(()),
            Err(AskRefused::AlreadyThere { .. }) => {
                reply.end(Ok(self.transferred(vip, to, true)));
                return Ok(None);
            }
            Err(refused) => Err(refusal(vip, &to, &refused)),
        };
        if let Err(error) = refused {
            reply.end(Err(error));
            return Ok(None);
        }
        tracing::info!(%vip, to, "asked to hand over");
        let transfer = Transfer {
            vip,
            to: to.clone(),
            ask_again_at: clock::boot_now() + ASK_AGAIN,
            failure: None,
        };
        self.errands.add(reply, patience, What::Transfer(transfer));
        self.feed(Event::Ask { vip, to })
    }

    fn transferred(&self, vip: IpAddr, to: String, already: bool) -> Success {
        Success::Transfer(Transferred {
            vips: self.election.moves_with(vip).to_vec(),
            to,
            already,
        })
    }

    fn look_at_transfer(&self, transfer: &Transfer, is_late: bool) -> Option<Ended> {
        let (vip, to) = (transfer.vip, &transfer.to);
        let late = |what: String| {
            let sight = if self.election.sees_cluster() {
                ""
            } else {
                "; and this node does not see at present what etcd holds"
            };
            is_late.then(|| {
                let message = format!("{vip} has not gone to {to} in time: {what}{sight}");
                Err(Error::new(ErrorKind::Timeout, message))
            })
        };
        match self.election.passage(vip, to) {
            Passage::There => Some(Ok(self.transferred(vip, to.clone(), false))),
            Passage::Refused(refused) => Some(Err(refusal(vip, to, &refused))),
            Passage::Superseded(other) => {
                let message =
                    format!("{vip} has not gone to {to}: it was asked since to go to {other}");
                Some(Err(Error::new(ErrorKind::Superseded, message)))
            }
            _ if transfer.failure.is_some() => {
                let why = transfer.failure.as_deref().unwrap_or_default();
                let message = format!("{vip} was not handed to {to}: {why}");
                Some(Err(Error::new(ErrorKind::Failed, message)))
            }
            Passage::NotNamed(owners) if owners.is_empty() => {
                late("nobody owns it at present".to_owned())
            }
            Passage::NotNamed(owners) => late(format!(
                "its owner {} has not begun; it does not answer, or does not agree: its log says \
                 more",
                owners.join(", ")
            )),
            Passage::Leaving(next) => late(format!("it was about to go from there to {next}")),
            Passage::NotReady => late(format!(
                "{to} was asked to get ready, and has not said that it is"
            )),
            Passage::NotGiven(owners) => late(format!(
                "{to} is ready, and its owner {} has not let go",
                owners.join(", ")
            )),
        }
    }

    fn keep_asking(&mut self, transfer: &mut Transfer) -> anyhow::Result<Option<Exit>> {
        let now = clock::boot_now();
        if now < transfer.ask_again_at {
            return Ok(None);
        }
        transfer.ask_again_at = now + ASK_AGAIN;
        let (vip, to) = (transfer.vip, transfer.to.clone());
        self.feed(Event::Ask { vip, to })
    }

    fn begin_drain(
        &mut self,
        reply: Reply,
        node: Option<String>,
        force: bool,
        wait: Option<Duration>,
    ) {
        if let Err(error) = self.may_write() {
            return reply.end(Err(error));
        }
        let node = node.unwrap_or_else(|| self.config.node.clone());
        let standing = self.election.drained().get(&node);
        let held = self.held_by(&node);
        if standing.is_none()
            && !force
            && let stuck = self.nobody_takes(&node, &held)
            && !stuck.is_empty()
        {
            let message = format!(
                "{node} is not drained, for it holds what no other member is fit for: {}; bring one in that is, or \
                 give it up with --force",
                say(&stuck)
            );
            return reply.end(Err(Error::new(ErrorKind::NobodyElse, message)));
        }
        let drain = Drain {
            force,
            waits: wait.is_some(),
            already: standing.is_some_and(|standing| standing.force == force),
            written_at: None,
            total: held.len(),
            told: None,
            stuck_since: None,
            node: node.clone(),
        };
        let patience = wait.unwrap_or_else(|| self.patience_with_etcd());
        let id = self.errands.add(reply, patience, What::Drain(drain));
        tracing::info!(node, force, "asked to drain");
        self.write(id, node, Some(force));
    }

    fn begin_undrain(&mut self, reply: Reply, node: Option<String>) {
        if let Err(error) = self.may_write() {
            return reply.end(Err(error));
        }
        let node = node.unwrap_or_else(|| self.config.node.clone());
        let what = What::Undrain {
            already: !self.election.drained().contains_key(&node),
            node: node.clone(),
            written_at: None,
        };
        let patience = self.patience_with_etcd();
        let id = self.errands.add(reply, patience, what);
        tracing::info!(node, "asked to undrain");
        self.write(id, node, None);
    }

    fn may_write(&self) -> Result<(), Error> {
        if !self.election.sees_cluster() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                AskRefused::NotIn.to_string(),
            ));
        }
        if self.errands.all.len() >= MOST {
            return Err(busy());
        }
        Ok(())
    }

    /// A write is bounded by one TTL, and seen by the watch well within another.
    fn patience_with_etcd(&self) -> Duration {
        3 * self.config.lease_ttl
    }

    /// `drain`: whether by force; `None`: undrain.
    fn write(&self, errand: u64, node: String, drain: Option<bool>) {
        let (drains, written) = (self.store.drains(), self.errands.written.clone());
        tokio::task::spawn_local(async move {
            let result = match drain {
                Some(force) => drains.drain(&node, force).await,
                None => drains.undrain(&node).await,
            };
            let result = result.map_err(|error| match drain {
                Some(_) => format!("{node} could not be drained: {error}"),
                None => format!("{node} could not be undrained: {error}"),
            });
            // The loop may have ended.
            let _ = written.send(Written { errand, result });
        });
    }

    fn look_at_drain(&self, drain: &mut Drain, reply: &Reply, is_late: bool) -> Option<Ended> {
        let node = &drain.node;
        let standing = self.election.drained().get(node);
        let is_seen = standing.is_some_and(|standing| standing.force == drain.force);
        if drain.written_at.is_none() || !is_seen {
            drain.stuck_since = None;
            if self.is_overruled(drain.written_at) {
                return Some(Err(overruled(node, standing)));
            }
            return is_late.then(|| Err(not_seen(node)));
        }
        let left = self.held_by(node);
        if !drain.waits || left.is_empty() {
            let drained = self.drained(node, drain.already);
            return Some(Ok(Success::Drain(drained)));
        }
        if drain.told.replace(left.len()) != Some(left.len()) {
            let total = drain.total.max(left.len());
            reply.progress(format!("{} of {total} left: {}", left.len(), some(&left)));
        }
        let stuck = self.keeps(node, &left);
        let now = clock::boot_now();
        let is_stuck = |vip: &IpAddr| stuck.iter().any(|(vips, _)| vips.contains(vip));
        if left.iter().all(is_stuck) {
            let since = *drain.stuck_since.get_or_insert(now);
            if now >= since + STUCK_FOR {
                let message = format!(
                    "{node} is drained and keeps what no other member is fit for: {}; make one fit, \
                     or give it up with --force",
                    say(&stuck)
                );
                return Some(Err(Error::new(ErrorKind::Stuck, message)));
            }
        } else {
            drain.stuck_since = None;
        }
        is_late.then(|| {
            let stuck = if stuck.is_empty() {
                String::new()
            } else {
                format!(", of which nobody else is fit for {}", say(&stuck))
            };
            let message = format!(
                "{node} is drained, and holds {} of {} yet: {}{stuck}; it goes on without being \
                 waited for",
                left.len(),
                drain.total.max(left.len()),
                some(&left),
            );
            Err(Error::new(ErrorKind::Timeout, message))
        })
    }

    fn look_at_undrain(
        &self,
        node: &str,
        already: bool,
        written_at: Option<i64>,
        is_late: bool,
    ) -> Option<Ended> {
        let standing = self.election.drained().get(node);
        if written_at.is_some() && standing.is_none() {
            let drained = self.drained(node, already);
            return Some(Ok(Success::Undrain(drained)));
        }
        if self.is_overruled(written_at) {
            return Some(Err(overruled(node, standing)));
        }
        is_late.then(|| Err(not_seen(node)))
    }

    /// Whether what was written, and is otherwise, is so because of somebody who came later.
    fn is_overruled(&self, written_at: Option<i64>) -> bool {
        written_at.is_some_and(|revision| self.election.knows_all_to(revision))
    }

    fn drained(&self, node: &str, already: bool) -> Drained {
        let holds = self.held_by(node);
        Drained {
            node: node.to_owned(),
            already,
            member: self.election.members().any(|member| member.node == node),
            warnings: self.keeps(node, &holds).iter().map(one).collect(),
            holds,
        }
    }

    fn held_by(&self, node: &str) -> Vec<IpAddr> {
        let mut holdings = self.election.holdings();
        holdings.remove(node).unwrap_or_default()
    }

    /// Which of these a drained node keeps, and why.
    fn keeps(&self, node: &str, held: &[IpAddr]) -> Vec<Stuck> {
        match self.election.drained().get(node) {
            Some(standing) if !standing.force => self.nobody_takes(node, held),
            _ => Vec::new(),
        }
    }

    /// For which of these, or for what they move with, nobody but `node` is fit, and why.
    fn nobody_takes(&self, node: &str, held: &[IpAddr]) -> Vec<Stuck> {
        let mut alike: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for vip in held {
            let Some(obstacles) = self.election.obstacles(*vip, node) else {
                continue;
            };
            let why = |(node, obstacle): (&str, Obstacle)| format!("{node} {obstacle}");
            let why: Vec<String> = obstacles.into_iter().map(why).collect();
            let why = if why.is_empty() {
                "there is no other member".to_owned()
            } else {
                why.join(", ")
            };
            alike.entry(why).or_default().push(*vip);
        }
        alike.into_iter().map(|(why, vips)| (vips, why)).collect()
    }
}

fn say(stuck: &[Stuck]) -> String {
    let parts: Vec<String> = stuck.iter().map(one).collect();
    parts.join("; ")
}

fn one((vips, why): &Stuck) -> String {
    format!("{} ({why})", some(vips))
}

fn some(vips: &[IpAddr]) -> String {
    a_few(vips, 4)
}

fn busy() -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{MOST} wait for this agent already; try again when some have ended"),
    )
}

/// By what stands now.
fn overruled(node: &str, standing: Option<&DrainRecord>) -> Error {
    let what = match standing {
        None => "was undrained",
        Some(DrainRecord { force: true, .. }) => "was drained with --force",
        Some(_) => "was drained without --force",
    };
    let message = format!("{node} {what} since; this is not waited for any longer");
    Error::new(ErrorKind::Superseded, message)
}

fn not_seen(node: &str) -> Error {
    let message = format!(
        "{node} may be drained or not, for etcd has not said so in time; look with \
         `vip-agent members`, and ask again"
    );
    Error::new(ErrorKind::Timeout, message)
}

fn refusal(vip: IpAddr, to: &str, refused: &AskRefused) -> Error {
    let kind = match refused {
        AskRefused::NotIn => ErrorKind::Unavailable,
        AskRefused::UnknownVip { .. } => {
            return Error::new(ErrorKind::UnknownVip, refused.to_string());
        }
        AskRefused::Vacant(_) => ErrorKind::Vacant,
        AskRefused::NoMember { .. } => ErrorKind::NoMember,
        AskRefused::Hindered {
            obstacle: Obstacle::Drained(_),
            ..
        } => ErrorKind::Drained,
        AskRefused::Hindered { .. } => ErrorKind::Unfit,
        // It is none where it is waited for.
        AskRefused::AlreadyThere { .. } => ErrorKind::Failed,
    };
    Error::new(kind, format!("{vip} does not go to {to}: {refused}"))
}
