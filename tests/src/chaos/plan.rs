//! What goes wrong when: storms of one to three faults, drawn from a seed.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// At most so many faults are in one storm.
const MOST: usize = 3;
/// Faults of a storm begin within this time of each other.
const SPREAD: Duration = Duration::from_millis(2_000);
/// How long a fault lasts.
const LASTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(6_000));

/// A fault, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGTERM, and a new start.
    Stop,
    /// SIGUSR1, and a new start.
    Hold,
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Freeze,
    /// The cable out of the LAN, and in again.
    Cable,
    /// It and its etcd member reach no other member.
    CutOff,
    /// Everything of the node dies at once, and boots.
    PowerCut,
    /// Its etcd member dies, and starts again.
    EtcdKilled,
    /// Its etcd member is frozen, and thawed.
    EtcdFrozen,
    /// The addresses of the shared IPs are deleted on it.
    AddressDeleted,
}

/// On whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever owns the IPv4 shared IP when the storm begins; with few exceptions the IPv6 one too.
    Owner,
    /// So many places behind the owner.
    Behind(usize),
}

/// One fault of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// On whom.
    pub target: Target,
    /// Since the storm's begin.
    pub begins: Duration,
    /// Since the storm's begin.
    pub ends: Duration,
}

/// An endless row of storms; the same for the same seed.
pub struct Storms {
    rng: Rng,
    nodes: usize,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Stop,
        Kind::Hold,
        Kind::Kill,
        Kind::Freeze,
        Kind::Cable,
        Kind::CutOff,
        Kind::PowerCut,
        Kind::EtcdKilled,
        Kind::EtcdFrozen,
        Kind::AddressDeleted,
    ];

    /// What of a node it takes away. Two faults at once must not break and mend the same thing.
    fn parts(self) -> &'static [Part] {
        match self {
            Kind::Stop | Kind::Hold | Kind::Kill | Kind::Freeze => &[Part::Agent],
            Kind::Cable => &[Part::Lan],
            Kind::CutOff => &[Part::Mgmt],
            Kind::EtcdKilled | Kind::EtcdFrozen => &[Part::Etcd],
            Kind::AddressDeleted => &[],
            Kind::PowerCut => &[Part::Agent, Part::Lan, Part::Mgmt, Part::Etcd],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Agent,
    Lan,
    Mgmt,
    Etcd,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Kind::Stop => "agent stopped",
            Kind::Hold => "agent held, restarted",
            Kind::Kill => "agent killed",
            Kind::Freeze => "agent frozen",
            Kind::Cable => "cable pulled",
            Kind::CutOff => "cut off from etcd",
            Kind::PowerCut => "power cut",
            Kind::EtcdKilled => "etcd member killed",
            Kind::EtcdFrozen => "etcd member frozen",
            Kind::AddressDeleted => "address deleted",
        })
    }
}

impl Storms {
    /// The storms of this seed, for a cluster of so many nodes.
    pub fn new(seed: u64, nodes: usize) -> Storms {
        Storms {
            rng: Rng::with_seed(seed),
            nodes,
        }
    }

    fn fault(&mut self) -> Fault {
        let kind = Kind::ALL[self.rng.usize(..Kind::ALL.len())];
        // Half of all hit the owner: that is where it hurts.
        let target = if self.rng.bool() {
            Target::Owner
        } else {
            Target::Behind(self.rng.usize(1..self.nodes))
        };
        let begins = self.between((Duration::ZERO, SPREAD));
        let lasts = self.between(LASTS);
        let ends = match kind {
            // As an upgrade does, and a hand that deletes.
            Kind::Hold | Kind::AddressDeleted => begins,
            _ => begins + lasts,
        };
        Fault {
            kind,
            target,
            begins,
            ends,
        }
    }

    fn between(&mut self, (from, to): (Duration, Duration)) -> Duration {
        from + (to - from).mul_f64(self.rng.f64())
    }
}

impl Iterator for Storms {
    type Item = Vec<Fault>;

    fn next(&mut self) -> Option<Vec<Fault>> {
        // One alone as often as several at once: alone its own outage shows.
        let wanted = if self.rng.bool() {
            1
        } else {
            self.rng.usize(2..=MOST)
        };
        let mut broken = BTreeSet::new();
        let mut storm: Vec<Fault> = Vec::new();
        while storm.len() < wanted {
            let fault = self.fault();
            let place = match fault.target {
                Target::Owner => 0,
                Target::Behind(places) => places,
            };
            let parts = fault.kind.parts().iter().map(|part| (place, *part));
            if parts.clone().any(|part| broken.contains(&part)) {
                continue;
            }
            broken.extend(parts);
            storm.push(fault);
        }
        Some(storm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_storms_again_and_another_seed_others() {
        let storms = |seed| Storms::new(seed, 3).take(20).collect::<Vec<_>>();
        assert_eq!(storms(7), storms(7));
        assert_ne!(storms(7), storms(8));
    }

    #[test]
    fn every_kind_comes_and_no_two_faults_of_a_storm_break_the_same_thing() {
        let mut seen = BTreeSet::new();
        for storm in Storms::new(1, 3).take(200) {
            assert!((1..=MOST).contains(&storm.len()));
            let parts: Vec<_> = storm
                .iter()
                .flat_map(|fault| fault.kind.parts().iter().map(|part| (fault.target, *part)))
                .collect();
            for (at, part) in parts.iter().enumerate() {
                assert!(!parts[..at].contains(part), "{storm:?}");
            }
            seen.extend(storm.iter().map(|fault| fault.kind));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), Kind::ALL);
    }
}
