//! What the probe sent and what came back, round by round.

use std::net::IpAddr;
use std::time::Duration;

use pnet::util::MacAddr;

use super::frames::{Answer, Question};

/// At most so many MAC addresses are told apart in one probe.
const MAX_SOURCES: usize = 64;

/// A MAC address that answers, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The node's name, or the MAC address of a stranger.
    pub node: String,
    /// The MAC address.
    pub mac: MacAddr,
}

/// A set of sources, one bit for each, by their order.
pub type SourceSet = u64;

/// One round. Times are nanoseconds since the probe's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// When its ordinary request was sent.
    pub sent_ns: u64,
    /// When the ordinary request's first answer was received by the socket.
    pub answered_ns: Option<u64>,
    /// How long it took to send all questions of the round.
    pub burst_ns: u64,
    /// Who answered the look-up.
    pub look_up: SourceSet,
    /// Who answered an echo request.
    pub echo: SourceSet,
    /// Who answered the ordinary request.
    pub ordinary: SourceSet,
    /// When the first answer to the look-up came in.
    pub look_up_ns: Option<u64>,
    /// When the first answer to an echo request came in.
    pub echo_ns: Option<u64>,
}

/// All rounds so far, as they concern one shared IP. A round has the same number for all.
#[derive(Clone, Debug)]
pub struct Records {
    /// The shared IP.
    pub vip: IpAddr,
    /// Known MAC addresses, then strangers as they turn up.
    pub sources: Vec<Source>,
    /// The rounds, by number.
    pub rounds: Vec<Round>,
    /// Answers that contradict themselves, or too many strangers: each a sentence.
    pub oddities: Vec<String>,
}

impl Records {
    /// No rounds yet, of these known sources.
    pub fn new(vip: IpAddr, sources: Vec<Source>) -> Records {
        // Minutes of rounds, so that the probe's thread seldom waits for the vector to move.
        Records {
            vip,
            sources,
            rounds: Vec::with_capacity(1 << 17),
            oddities: Vec::new(),
        }
    }

    /// A copy of the rounds from number `first` on.
    pub fn from(&self, first: usize) -> Records {
        let rounds = self.rounds.get(first..).unwrap_or_default().to_vec();
        Records {
            vip: self.vip,
            sources: self.sources.clone(),
            rounds,
            oddities: self.oddities.clone(),
        }
    }

    /// When the last round was sent.
    pub fn last_sent(&self) -> Option<Duration> {
        self.rounds
            .last()
            .map(|round| Duration::from_nanos(round.sent_ns))
    }

    /// The number of the first round that was sent at this time or later.
    pub fn first_at(&self, since_start: Duration) -> usize {
        self.rounds
            .partition_point(|round| Duration::from_nanos(round.sent_ns) < since_start)
    }

    /// Takes a note of an answer's frame: who answered. Answers to rounds that were never sent are not ours.
    pub fn seen(&mut self, answer: Answer, from: MacAddr, at_ns: u64) {
        let Some(bit) = self.bit(from) else {
            self.oddities
                .push(format!("no room for another stranger: {from}"));
            return;
        };
        let Some(round) = self.round(answer.round) else {
            return;
        };
        match answer.question {
            Question::LookUp => {
                round.look_up |= bit;
                round.look_up_ns.get_or_insert(at_ns);
            }
            Question::Echo => {
                round.echo |= bit;
                round.echo_ns.get_or_insert(at_ns);
            }
            Question::Ordinary => round.ordinary |= bit,
        }
    }

    /// Takes a note of an ordinary request's answer, as the socket got it.
    pub fn answered(&mut self, round: u32, at_ns: u64) {
        if let Some(round) = self.round(round) {
            round.answered_ns.get_or_insert(at_ns);
        }
    }

    fn round(&mut self, number: u32) -> Option<&mut Round> {
        self.rounds.get_mut(usize::try_from(number).ok()?)
    }

    fn bit(&mut self, mac: MacAddr) -> Option<SourceSet> {
        let known = self.sources.iter().position(|source| source.mac == mac);
        let index = known.unwrap_or(self.sources.len());
        if index >= MAX_SOURCES {
            return None;
        }
        if known.is_none() {
            self.sources.push(Source {
                node: format!("stranger {mac}"),
                mac,
            });
        }
        Some(1 << index)
    }
}
