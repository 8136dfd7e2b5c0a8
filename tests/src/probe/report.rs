//! What follows from the records: outages, and rounds answered by two.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::records::{Records, Round, Source, SourceSet};
use crate::addresses::Family;

/// An answer within this time is prompt. A request whose answer comes later was waiting somewhere (in the client's neighbour cache, for example), so
/// for the client it belongs to the outage.
pub const PATIENCE: Duration = Duration::from_millis(10);

/// A question without an answer for so long was lost. On a busy machine answers come late, and that is the machine's doing; none is lost by it.
pub const GIVEN_UP: Duration = Duration::from_secs(1);

/// A stretch of time in which the ordinary client got no answers: from the sending of the first request that was not answered promptly to the receipt
/// of the first answer to it or to any later one. Its resolution is the probe's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When it began, since the probe's start.
    pub began: Duration,
    /// How long it lasted; so far, if it is not over.
    pub lasted: Duration,
    /// Whether an answer has ended it.
    pub over: bool,
}

/// What one node (or stranger) answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The node's name.
    pub node: String,
    /// Rounds whose look-up it answered.
    pub look_up: usize,
    /// Rounds in which it answered an echo request.
    pub echo: usize,
    /// Ordinary requests it answered.
    pub ordinary: usize,
}

impl Answers {
    /// All of them.
    pub fn all(&self) -> usize {
        self.look_up + self.echo + self.ordinary
    }
}

/// A probe's findings over a stretch of rounds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many rounds.
    pub rounds: usize,
    /// What was noticed of each shared IP, in the order in which they were named.
    pub noticed: Vec<Noticed>,
    /// Answers that contradict themselves.
    pub oddities: Vec<String>,
    /// The longest time between two rounds: how far to trust the outages.
    pub longest_pause: Duration,
    /// The longest time that one round's questions about one shared IP took to send.
    pub longest_burst: Duration,
}

/// What was noticed of one shared IP.
#[derive(Clone, Debug)]
pub struct Noticed {
    /// The shared IP.
    pub vip: IpAddr,
    /// How many ordinary requests were answered at all.
    pub answered: usize,
    /// How many ordinary requests may yet be answered promptly: those in flight when the report was made.
    pub in_flight: usize,
    /// All outages in order.
    pub outages: Vec<Outage>,
    /// Rounds that were not served, as far as they are decided: the ordinary request, the look-up or all echo requests were lost, or the ordinary
    /// request had to wait for something that the echo requests, which need no neighbour cache, did not wait for. Unlike an outage this does not
    /// count a late answer when all answers of the round are late: then the machine was busy, not the shared IP away.
    pub missed: usize,
    /// Rounds in which more than one node answered, by look-up or echo. The ordinary request is left out: it may wait in the client's neighbour cache
    /// and be answered, rightly, by the next owner.
    pub by_two: usize,
    /// Rounds in which more than one node answered the look-up.
    pub look_up_by_two: usize,
    /// Rounds in which more than one node answered an echo request.
    pub echo_by_two: usize,
    /// Rounds whose look-up was answered from more than one MAC address, be it of one node.
    pub look_up_by_two_macs: usize,
    /// Per node that answered anything.
    pub answers: Vec<Answers>,
}

impl Report {
    /// Judges the records of the same rounds at `now` since the probe's start.
    pub fn of(records: &[Records], now: Duration) -> Report {
        let rounds = records.first().map_or(&[][..], |one| &one.rounds);
        let pauses = rounds
            .windows(2)
            .map(|pair| pair[1].sent_ns.saturating_sub(pair[0].sent_ns));
        let bursts = records.iter().flat_map(|one| &one.rounds);
        let oddities = records.iter().flat_map(|one| &one.oddities);
        Report {
            rounds: rounds.len(),
            noticed: records.iter().map(|one| Noticed::of(one, now)).collect(),
            oddities: oddities.cloned().collect(),
            longest_pause: Duration::from_nanos(pauses.max().unwrap_or_default()),
            longest_burst: Duration::from_nanos(
                bursts.map(|round| round.burst_ns).max().unwrap_or_default(),
            ),
        }
    }

    /// What was noticed of one shared IP.
    pub fn of_vip(&self, vip: IpAddr) -> Result<&Noticed> {
        let found = self.noticed.iter().find(|noticed| noticed.vip == vip);
        found.with_context(|| format!("the probe did not ask for {vip}"))
    }

    /// How many ordinary requests were answered at all, by the shared IP that answered fewest.
    pub fn answered(&self) -> usize {
        self.least(|noticed| noticed.answered)
    }

    /// The outages of all shared IPs.
    pub fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.noticed.iter().flat_map(|noticed| &noticed.outages)
    }

    /// The longest outage of any shared IP; zero if there was none.
    pub fn longest_outage(&self) -> Duration {
        let longest = self.noticed.iter().map(Noticed::longest_outage).max();
        longest.unwrap_or_default()
    }

    /// How many ordinary requests may yet be answered promptly, of the shared IP with most of them.
    pub fn in_flight(&self) -> usize {
        self.most(|noticed| noticed.in_flight)
    }

    /// Rounds that were missed, of the shared IP that most were missed of.
    pub fn missed(&self) -> usize {
        self.most(|noticed| noticed.missed)
    }

    /// Rounds answered by two, of all shared IPs together.
    pub fn by_two(&self) -> usize {
        self.noticed.iter().map(|noticed| noticed.by_two).sum()
    }

    /// What a node answered, for all shared IPs together.
    pub fn answers_of(&self, node: &str) -> Answers {
        let answers = self.noticed.iter().map(|noticed| noticed.answers_of(node));
        let none = Answers {
            node: node.to_owned(),
            ..Answers::default()
        };
        answers.fold(none, |sum, one| Answers {
            look_up: sum.look_up + one.look_up,
            echo: sum.echo + one.echo,
            ordinary: sum.ordinary + one.ordinary,
            ..sum
        })
    }

    /// A figure of each shared IP under its family's name: `IPv4 386 ms, IPv6 380 ms`.
    pub fn told(&self, figure: impl Fn(&Noticed) -> String) -> String {
        let told = self
            .noticed
            .iter()
            .map(|noticed| format!("{} {}", Family::from(noticed.vip), figure(noticed)));
        told.collect::<Vec<_>>().join(", ")
    }

    fn least(&self, of: impl Fn(&Noticed) -> usize) -> usize {
        self.noticed.iter().map(of).min().unwrap_or_default()
    }

    fn most(&self, of: impl Fn(&Noticed) -> usize) -> usize {
        self.noticed.iter().map(of).max().unwrap_or_default()
    }
}

impl Noticed {
    fn of(records: &Records, now: Duration) -> Noticed {
        let rounds = &records.rounds;
        let nodes: Vec<(&str, SourceSet)> = nodes(&records.sources);
        let by_two = |set: SourceSet| nodes.iter().filter(|(_, bits)| set & bits != 0).count() > 1;
        let count = |is: &dyn Fn(&Round) -> bool| rounds.iter().filter(|round| is(round)).count();
        let answers = nodes.iter().map(|(node, bits)| Answers {
            node: (*node).to_owned(),
            look_up: count(&|round| round.look_up & bits != 0),
            echo: count(&|round| round.echo & bits != 0),
            ordinary: count(&|round| round.ordinary & bits != 0),
        });
        Noticed {
            vip: records.vip,
            answered: count(&|round| round.answered_ns.is_some()),
            in_flight: count(&|round| {
                round.answered_ns.is_none() && prompt(round, nanos(PATIENCE), nanos(now))
            }),
            outages: outages(rounds, now),
            missed: count(&|round| missed(round, nanos(now))),
            by_two: count(&|round| by_two(round.look_up | round.echo)),
            look_up_by_two: count(&|round| by_two(round.look_up)),
            echo_by_two: count(&|round| by_two(round.echo)),
            look_up_by_two_macs: count(&|round| round.look_up.count_ones() > 1),
            answers: answers.filter(|answers| answers.all() > 0).collect(),
        }
    }

    /// The longest outage; zero if there was none.
    pub fn longest_outage(&self) -> Duration {
        self.outages
            .iter()
            .map(|outage| outage.lasted)
            .max()
            .unwrap_or_default()
    }

    /// All outages added up.
    pub fn total_outage(&self) -> Duration {
        self.outages.iter().map(|outage| outage.lasted).sum()
    }

    /// What a node answered.
    pub fn answers_of(&self, node: &str) -> Answers {
        let found = self
            .answers
            .iter()
            .find(|answers| answers.node == node)
            .cloned();
        found.unwrap_or_else(|| Answers {
            node: node.to_owned(),
            ..Answers::default()
        })
    }
}

fn nodes(sources: &[Source]) -> Vec<(&str, SourceSet)> {
    let names: BTreeSet<&str> = sources.iter().map(|source| source.node.as_str()).collect();
    let bits = |name: &str| {
        (0..)
            .zip(sources)
            .filter(|(_, source)| source.node == name)
            .map(|(index, _)| 1 << index)
            .sum()
    };
    names.into_iter().map(|name| (name, bits(name))).collect()
}

fn outages(rounds: &[Round], now: Duration) -> Vec<Outage> {
    let patience_ns = nanos(PATIENCE);
    let now_ns = nanos(now);
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(offset) = rounds[next..]
        .iter()
        .position(|round| !prompt(round, patience_ns, now_ns))
    {
        let first = next + offset;
        let began_ns = rounds[first].sent_ns;
        let ended_ns = first_answer_ns(&rounds[first..]);
        found.push(Outage {
            began: Duration::from_nanos(began_ns),
            lasted: Duration::from_nanos(ended_ns.unwrap_or(now_ns).saturating_sub(began_ns)),
            over: ended_ns.is_some(),
        });
        let Some(ended_ns) = ended_ns else { break };
        next = first + rounds[first..].partition_point(|round| round.sent_ns < ended_ns);
    }
    found
}

/// Whether a request was answered promptly; one that may yet be gets the benefit of the doubt.
fn prompt(round: &Round, patience_ns: u64, now_ns: u64) -> bool {
    round.answered_ns.unwrap_or(now_ns) <= round.sent_ns + patience_ns
}

fn missed(round: &Round, now_ns: u64) -> bool {
    if now_ns < round.sent_ns + nanos(GIVEN_UP) {
        return false;
    }
    let answers = (round.answered_ns, round.look_up_ns, round.echo_ns);
    let (Some(ordinary), Some(_), Some(echo)) = answers else {
        return true;
    };
    ordinary > echo + nanos(PATIENCE)
}

/// The earliest receipt among the answers to these requests. Requests may be answered out of order when a queue is flushed.
fn first_answer_ns(rounds: &[Round]) -> Option<u64> {
    let mut earliest: Option<u64> = None;
    for round in rounds {
        if earliest.is_some_and(|at_ns| round.sent_ns >= at_ns) {
            break;
        }
        earliest = [earliest, round.answered_ns].into_iter().flatten().min();
    }
    earliest
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{Answer, Question};
    use super::*;
    use pnet::util::MacAddr;

    const MS: u64 = 1_000_000;
    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 100));

    /// Requests 2 ms apart; each entry is the delay of its answer in ms.
    fn records(delays_ms: &[Option<u64>]) -> Records {
        let rounds = (0..).zip(delays_ms).map(|(number, delay)| {
            let sent_ns = number * 2 * MS;
            Round {
                sent_ns,
                answered_ns: delay.map(|delay| sent_ns + delay * MS),
                ..Round::default()
            }
        });
        Records {
            rounds: rounds.collect(),
            ..Records::new(VIP, Vec::new())
        }
    }

    fn told(delays_ms: &[Option<u64>], now_ms: u64) -> Vec<(u128, u128, bool)> {
        let report = Noticed::of(&records(delays_ms), Duration::from_millis(now_ms));
        report
            .outages
            .iter()
            .map(|outage| {
                (
                    outage.began.as_millis(),
                    outage.lasted.as_millis(),
                    outage.over,
                )
            })
            .collect()
    }

    #[test]
    fn prompt_answers_make_no_outage() {
        assert_eq!(told(&[Some(0), Some(1), Some(9)], 100), []);
    }

    #[test]
    fn an_outage_runs_from_the_first_lost_request_to_the_first_answer() {
        assert_eq!(
            told(&[Some(0), None, None, None, Some(1), Some(0)], 100),
            [(2, 7, true)]
        );
    }

    #[test]
    fn requests_that_queued_up_do_not_shorten_an_outage() {
        // Sent at 2, 4, … 22 ms, and all answered at 24 ms, when the neighbour was found.
        let queued: Vec<Option<u64>> = (1..12).map(|number| Some(24 - number * 2)).collect();
        let delays: Vec<Option<u64>> = [vec![Some(0)], queued, vec![Some(0)]].concat();
        assert_eq!(told(&delays, 100), [(2, 22, true)]);
    }

    #[test]
    fn an_answer_to_an_earlier_request_ends_nothing() {
        assert_eq!(told(&[Some(5), None, None, Some(0)], 100), [(2, 4, true)]);
    }

    #[test]
    fn what_may_yet_be_answered_is_not_judged() {
        assert_eq!(told(&[Some(0), None], 11), []);
        assert_eq!(told(&[Some(0), None], 13), [(2, 11, false)]);
    }

    #[test]
    fn two_outages_are_two() {
        assert_eq!(
            told(&[None, Some(0), Some(0), None, Some(0)], 100),
            [(0, 2, true), (6, 2, true)]
        );
    }

    #[test]
    fn a_round_is_missed_when_a_question_was_lost_or_waited_alone() {
        let sent_ns = 0;
        let round = |ordinary: Option<u64>, look_up: Option<u64>, echo: Option<u64>| Round {
            sent_ns,
            answered_ns: ordinary.map(|ms| ms * MS),
            look_up_ns: look_up.map(|ms| ms * MS),
            echo_ns: echo.map(|ms| ms * MS),
            ..Round::default()
        };
        let missed = |round, now_ms: u64| super::missed(&round, now_ms * MS);
        assert!(!missed(round(Some(0), Some(0), Some(0)), 2000));
        assert!(
            !missed(round(Some(300), Some(290), Some(300)), 2000),
            "all are late: the machine"
        );
        assert!(missed(round(None, Some(0), Some(0)), 2000));
        assert!(missed(round(Some(0), None, Some(0)), 2000));
        assert!(missed(round(Some(0), Some(0), None), 2000));
        assert!(
            missed(round(Some(300), Some(0), Some(0)), 2000),
            "it queued for a neighbour"
        );
        assert!(!missed(round(None, None, None), 999), "not decided yet");
    }

    #[test]
    fn a_round_is_answered_by_two_nodes_however_they_answer() {
        let source = |node: &str, last| Source {
            node: node.to_owned(),
            mac: MacAddr::new(2, 0, 0, 0, 0, last),
        };
        let mut records = records(&[None; 5]);
        records.sources = vec![source("n1", 1), source("n1", 11), source("n2", 2)];
        let mut seen = |round, question, last| {
            records.seen(
                Answer { question, round },
                MacAddr::new(2, 0, 0, 0, 0, last),
                0,
            )
        };
        seen(0, Question::LookUp, 1);
        seen(0, Question::LookUp, 1);
        seen(1, Question::LookUp, 1);
        seen(1, Question::LookUp, 11);
        seen(2, Question::LookUp, 1);
        seen(2, Question::Echo, 2);
        seen(3, Question::Echo, 2);
        seen(3, Question::Echo, 77);
        seen(9, Question::LookUp, 1);
        let report = Noticed::of(&records, Duration::ZERO);
        assert_eq!(
            (
                report.by_two,
                report.look_up_by_two,
                report.echo_by_two,
                report.look_up_by_two_macs
            ),
            (2, 0, 1, 1)
        );
        assert_eq!(
            report.answers_of("n1"),
            Answers {
                node: "n1".to_owned(),
                look_up: 3,
                echo: 0,
                ordinary: 0
            }
        );
        assert_eq!(
            Noticed::of(&records.from(3), Duration::ZERO).by_two,
            1,
            "from round 3 on"
        );
    }
}
