//! How fast to announce.

use std::time::Duration;

use crate::election::BootInstant;

/// A node that takes over hundreds of shared IPs at once is to fill no queue on the way, of a switch or of a
/// machine that has to take note of each: 300 are announced within 71 ms.
const AT_ONCE: u32 = 16;
const BETWEEN: Duration = Duration::from_micros(250);

/// So many at once as [`AT_ONCE`] says after a pause, then one in each [`BETWEEN`].
#[derive(Clone, Debug)]
pub struct Pace {
    /// When the next would be due if there had been no allowance to begin with.
    next: BootInstant,
}

impl Pace {
    /// After a pause.
    pub fn rested() -> Self {
        Self {
            next: BootInstant::BOOT,
        }
    }

    /// When the next may go.
    pub fn ready_at(&self) -> BootInstant {
        self.next - (AT_ONCE - 1) * BETWEEN
    }

    /// Lets one go, if it may.
    pub fn take(&mut self, now: BootInstant) -> bool {
        let may = self.ready_at() <= now;
        if may {
            self.next = self.next.max(now) + BETWEEN;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootInstant = BootInstant::from_ns(5_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn taken(pace: &mut Pace, now: BootInstant) -> u32 {
        (0..).find(|_| !pace.take(now)).expect("it ends")
    }

    #[test]
    fn some_at_once_then_four_each_millisecond() {
        let mut pace = Pace::rested();
        assert_eq!(taken(&mut pace, START), 16);
        for ms in 1..50 {
            assert_eq!(taken(&mut pace, START + ms * MS), 4);
        }
    }

    #[test]
    fn three_hundred_take_well_under_a_hundred_milliseconds() {
        let mut pace = Pace::rested();
        let mut now = START;
        for _ in 0..300 {
            now = now.max(pace.ready_at());
            assert!(pace.take(now));
        }
        let took = now.saturating_since(START);
        assert!(took > 50 * MS && took < 80 * MS, "{took:?}");
    }

    #[test]
    fn whoever_is_late_makes_up_for_little() {
        let mut pace = Pace::rested();
        taken(&mut pace, START);
        assert_eq!(taken(&mut pace, START + 3 * MS), 12);
        assert_eq!(taken(&mut pace, START + 1000 * MS), 16);
    }

    #[test]
    fn it_says_when_the_next_may_go() {
        let mut pace = Pace::rested();
        assert!(pace.ready_at() <= START);
        taken(&mut pace, START);
        let at = pace.ready_at();
        assert!(!pace.take(at - Duration::from_nanos(1)) && pace.take(at));
    }
}
