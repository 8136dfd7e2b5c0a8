//! When to announce.

use std::time::Duration;

use crate::election::BootInstant;

/// After the first announcement. Linux keeps a neighbour's entry for a second after it changed
/// (`locktime`), and a switch or a peer may have missed the first: so twice more, each past a second.
/// RFC 4861 §7.2.6 allows three advertisements (MAX_NEIGHBOR_ADVERTISEMENT), a second (RetransTimer) apart;
/// ours are, unless the interface is announced on anew.
const BURST: [Duration; 2] = [Duration::from_millis(1_100), Duration::from_millis(2_200)];
/// From then on, for whoever has forgotten. RFC 4861 has no such advertisements: it leaves those that lost
/// the three to find out by unreachability detection, which takes them some seconds (§7.3.3).
const REFRESH: Duration = Duration::from_secs(60);

/// One shared IP's announcements: at once, 1.1 s and 2.2 s after that one was sent, then every 60 s.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: BootInstant,
    sent: usize,
    next_due: BootInstant,
}

impl Schedule {
    /// Due at once.
    pub fn starting(now: BootInstant) -> Self {
        Self {
            start: now,
            sent: 0,
            next_due: now,
        }
    }

    /// When the next is due.
    pub fn next_due(&self) -> BootInstant {
        self.next_due
    }

    /// One was sent.
    pub fn sent(&mut self, now: BootInstant) {
        if self.sent == 0 {
            self.start = now;
        }
        self.next_due = match BURST.get(self.sent) {
            Some(after) => self.start + *after,
            None => now + REFRESH,
        };
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_every_minute() {
        let start = BootInstant::from_ns(5_000_000_000);
        let mut schedule = Schedule::starting(start);
        let mut offsets_ms = Vec::new();
        for _ in 0..5 {
            let due = schedule.next_due();
            offsets_ms.push(due.saturating_since(start).as_millis());
            schedule.sent(due);
        }
        assert_eq!(offsets_ms, [0, 1_100, 2_200, 62_200, 122_200]);
    }

    #[test]
    fn what_had_to_wait_keeps_its_distance_afterwards() {
        let start = BootInstant::from_ns(5_000_000_000);
        let mut schedule = Schedule::starting(start);
        let late = start + Duration::from_millis(70);
        schedule.sent(late);
        assert_eq!(schedule.next_due(), late + BURST[0]);
        schedule.sent(late + BURST[0]);
        assert_eq!(schedule.next_due(), late + BURST[1]);
    }
}
