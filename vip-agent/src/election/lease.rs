//! The lease, and what it takes for a renewal to count.
//!
//! etcd's leader answers renewals by itself, from memory. A leader that was deposed and has not
//! noticed goes on answering while its successor lets the lease expire. So a renewal counts only
//! together with a *linearizable* read that was sent no earlier, shows our key on our lease, and
//! was answered in a Raft term not above the renewal's: then no successor had been elected when
//! the renewal was sent, and any later one grants every lease its full TTL anew.
//!
//! A lease that lives although it was not renewed for longer than its TTL, under the leader that
//! renewed it last, is not the one that was left: the store has come back from a backup in the
//! meantime, and in the history that was lost others may own what in this one is ours.

use std::time::Duration;

use super::{event::RoundId, record::LeaseId, time::BootInstant};

/// A lease that etcd granted us.
#[derive(Debug)]
pub(super) struct Lease {
    pub id: LeaseId,
    /// What etcd granted, not what was asked for.
    pub ttl: Duration,
    /// Until when our gates may be open.
    pub deadline: BootInstant,
    pub next_round_at: BootInstant,
    /// When the last renewal that counted was sent.
    counted_at: BootInstant,
    /// When the last one was sent that was answered at all: it prolonged the lease, unless who answered
    /// was deposed.
    renewed_at: BootInstant,
    /// The Raft term of the last that counted, or one that the lease surely lived in.
    raft_term: Option<u64>,
    rounds: Vec<Round>,
}

/// What a round of renewal and reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An answer is still out, or the round is an old one.
    Open,
    /// It counts: the deadline is this.
    Counts(BootInstant),
    /// It would count, but by all that is known the lease should have ended long before.
    Outlived,
    /// It was answered by a leader that is one no longer.
    Stale { renewed_in: u64, read_in: u64 },
    /// The read, at this revision, does not show our key on the lease; or etcd says that there is
    /// no such lease, and the read does not agree.
    Unseen { read_at: i64 },
    /// etcd says that there is no such lease, and the read agrees.
    Gone,
}

#[derive(Debug)]
struct Round {
    id: RoundId,
    /// Taken before the renewal was sent.
    sent_at: BootInstant,
    /// The newest revision known then: a linearizable read can't answer with an older one.
    known_revision: i64,
    renewal: Option<Renewal>,
    reading: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    ttl: Duration,
    raft_term: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub raft_term: u64,
    pub revision: i64,
    pub member_key_is_ours: bool,
}

/// Rounds that may be out at once: one more is sent each sixth of the TTL, and none is of use
/// after five of them.
const MOST_ROUNDS: usize = 5;

impl Lease {
    /// A deadline of `BOOT` is one that is not known: then nothing rests on it.
    pub fn new(id: LeaseId, ttl: Duration, deadline: BootInstant, now: BootInstant) -> Self {
        let renewed_at = if deadline == BootInstant::BOOT {
            now
        } else {
            deadline - (ttl - ttl / 6)
        };
        Self {
            id,
            ttl,
            deadline,
            next_round_at: now,
            counted_at: renewed_at,
            renewed_at,
            raft_term: None,
            rounds: Vec::new(),
        }
    }

    /// The instant at which a gate must be shut that rests on a request sent at `sent_at`: a sixth
    /// of the TTL before etcd can let the lease go, for clocks that run at different rates.
    pub fn deadline_after(sent_at: BootInstant, ttl: Duration) -> BootInstant {
        sent_at + (ttl - ttl / 6)
    }

    /// A read was answered in this term at `now`. Taken for the term of the last renewal if the lease
    /// can't have ended by then.
    pub fn lives_in(&mut self, raft_term: u64, now: BootInstant) {
        if now <= self.ends_by() {
            self.raft_term = Some(raft_term);
        }
    }

    /// Nothing that was asked before is of use any more.
    pub fn forget_rounds(&mut self, now: BootInstant) {
        self.rounds.clear();
        self.next_round_at = now;
    }

    pub fn begin_round(&mut self, id: RoundId, now: BootInstant, known_revision: i64) {
        if self.rounds.len() == MOST_ROUNDS {
            self.rounds.remove(0);
        }
        self.rounds.push(Round {
            id,
            sent_at: now,
            known_revision,
            renewal: None,
            reading: None,
        });
        self.next_round_at = now + self.ttl / 6;
    }

    /// The revision that was known when the round was sent, if it is one of ours.
    pub fn known_revision(&self, id: RoundId) -> Option<i64> {
        self.rounds
            .iter()
            .find(|round| round.id == id)
            .map(|round| round.known_revision)
    }

    pub fn renewed(&mut self, id: RoundId, ttl: Duration, raft_term: u64) {
        let ends_by = self.ends_by();
        let Some(round) = self.round(id) else {
            return;
        };
        round.renewal = Some(Renewal { ttl, raft_term });
        let sent_at = round.sent_at;
        if !ttl.is_zero() && sent_at <= ends_by {
            self.renewed_at = self.renewed_at.max(sent_at);
        }
    }

    pub fn read(&mut self, id: RoundId, reading: Reading) {
        if let Some(round) = self.round(id) {
            round.reading = Some(reading);
        }
    }

    /// Judges a round; one that is decided is dropped, with all older ones.
    pub fn judge(&mut self, id: RoundId) -> Verdict {
        let Some(&mut Round {
            sent_at,
            renewal: Some(renewal),
            reading: Some(reading),
            ..
        }) = self.round(id)
        else {
            return Verdict::Open;
        };
        self.rounds.retain(|round| round.id > id);
        match (renewal.ttl.is_zero(), reading.member_key_is_ours) {
            (true, false) => Verdict::Gone,
            (true, true) | (false, false) => Verdict::Unseen {
                read_at: reading.revision,
            },
            (false, true) if reading.raft_term > renewal.raft_term => {
                self.renewed_at = self.counted_at;
                Verdict::Stale {
                    renewed_in: renewal.raft_term,
                    read_in: reading.raft_term,
                }
            }
            (false, true) => {
                // A new leader gives it its whole time again.
                let extended = self.raft_term.is_some_and(|term| renewal.raft_term > term);
                let outlived = sent_at > self.ends_by() && !extended;
                self.counted_at = sent_at;
                self.renewed_at = self.renewed_at.max(sent_at);
                self.raft_term = Some(renewal.raft_term);
                self.ttl = renewal.ttl;
                if outlived {
                    return Verdict::Outlived;
                }
                Verdict::Counts(Self::deadline_after(sent_at, renewal.ttl))
            }
        }
    }

    /// By then etcd has let it go, if none was renewed since and no leader was elected; clocks may
    /// differ in their rates.
    fn ends_by(&self) -> BootInstant {
        self.renewed_at + self.ttl + self.ttl / 8
    }

    fn round(&mut self, id: RoundId) -> Option<&mut Round> {
        self.rounds.iter_mut().find(|round| round.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);
    const SENT: BootInstant = BootInstant::from_ns(10_000_000_000);
    const ROUND: RoundId = RoundId(1);

    fn judged(ttl: Duration, renewed_in: u64, read_in: u64, member_key_is_ours: bool) -> Verdict {
        let mut lease = Lease::new(LeaseId(7), TTL, BootInstant::BOOT, SENT);
        lease.begin_round(ROUND, SENT, 5);
        lease.renewed(ROUND, ttl, renewed_in);
        assert_eq!(
            lease.judge(ROUND),
            Verdict::Open,
            "a renewal alone never counts"
        );
        lease.read(
            ROUND,
            Reading {
                raft_term: read_in,
                revision: 9,
                member_key_is_ours,
            },
        );
        lease.judge(ROUND)
    }

    #[test]
    fn a_round_counts_from_when_it_was_sent_less_a_sixth() {
        let deadline = BootInstant::from_ns(12_500_000_000);
        assert_eq!(judged(TTL, 4, 4, true), Verdict::Counts(deadline));
        assert_eq!(judged(TTL, 4, 3, true), Verdict::Counts(deadline));
    }

    #[test]
    fn the_granted_ttl_counts_not_the_one_asked_for() {
        let deadline = BootInstant::from_ns(15_000_000_000);
        assert_eq!(judged(2 * TTL, 4, 4, true), Verdict::Counts(deadline));
    }

    /// The verdicts on a renewal that counts and on one that is sent so much later.
    fn judged_again_after(pause: Duration, terms: [u64; 2]) -> Verdict {
        let mut lease = Lease::new(LeaseId(7), TTL, SENT, SENT);
        let mut verdict = Verdict::Open;
        for (number, (sent_at, raft_term)) in (1..).zip([SENT, SENT + pause].into_iter().zip(terms))
        {
            let id = RoundId(number);
            lease.begin_round(id, sent_at, 5);
            lease.renewed(id, TTL, raft_term);
            let reading = Reading {
                raft_term,
                revision: 9,
                member_key_is_ours: true,
            };
            lease.read(id, reading);
            verdict = lease.judge(id);
        }
        verdict
    }

    #[test]
    fn renewals_that_were_answered_without_a_read_prolong_the_lease_all_the_same() {
        let mut lease = Lease::new(LeaseId(7), TTL, SENT + (TTL - TTL / 6), SENT);
        let mut sent_at = SENT;
        for number in 1..20 {
            sent_at = sent_at + TTL / 6;
            lease.begin_round(RoundId(number), sent_at, 5);
            lease.renewed(RoundId(number), TTL, 4);
        }
        let reading = Reading {
            raft_term: 4,
            revision: 9,
            member_key_is_ours: true,
        };
        lease.read(RoundId(19), reading);
        assert!(matches!(lease.judge(RoundId(19)), Verdict::Counts(_)));
    }

    #[test]
    fn a_lease_outlives_its_ttl_only_by_a_new_leader() {
        let (within, past) = (TTL + TTL / 10, TTL + TTL / 7);
        assert!(matches!(
            judged_again_after(within, [4, 4]),
            Verdict::Counts(_)
        ));
        assert!(matches!(
            judged_again_after(past, [4, 5]),
            Verdict::Counts(_)
        ));
        assert_eq!(judged_again_after(past, [4, 4]), Verdict::Outlived);
        assert_eq!(judged_again_after(past, [4, 2]), Verdict::Outlived);
    }

    #[test]
    fn a_renewal_from_before_the_reads_term_is_stale() {
        assert_eq!(
            judged(TTL, 4, 5, true),
            Verdict::Stale {
                renewed_in: 4,
                read_in: 5
            }
        );
    }

    #[test]
    fn a_read_without_our_key_proves_nothing() {
        assert_eq!(judged(TTL, 4, 4, false), Verdict::Unseen { read_at: 9 });
    }

    #[test]
    fn the_lease_is_gone_only_if_renewal_and_read_agree() {
        assert_eq!(
            judged(Duration::ZERO, 4, 4, true),
            Verdict::Unseen { read_at: 9 }
        );
        assert_eq!(judged(Duration::ZERO, 4, 4, false), Verdict::Gone);
    }

    #[test]
    fn a_round_that_an_answer_of_a_newer_one_overtook_is_passed_over() {
        let mut lease = Lease::new(LeaseId(7), TTL, BootInstant::BOOT, SENT);
        lease.begin_round(RoundId(1), SENT, 5);
        lease.begin_round(RoundId(2), SENT + TTL / 6, 5);
        for id in [RoundId(2), RoundId(1)] {
            lease.renewed(id, TTL, 4);
            lease.read(
                id,
                Reading {
                    raft_term: 4,
                    revision: 9,
                    member_key_is_ours: true,
                },
            );
        }
        assert!(matches!(lease.judge(RoundId(2)), Verdict::Counts(_)));
        assert_eq!(lease.judge(RoundId(1)), Verdict::Open);
    }
}
