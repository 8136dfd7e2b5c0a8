//! Whose announcement is next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::BootInstant;
use crate::net::{Pace, Schedule};

/// Those that begin go first, in the order in which they do; then those that are due again, the longest
/// due first.
pub(super) struct Queue {
    pace: Pace,
    entries: BTreeMap<IpAddr, (Place, Schedule)>,
    order: BTreeSet<(Place, IpAddr)>,
    begun: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The how manieth to begin.
    First(u64),
    Again(BootInstant),
}

impl Queue {
    pub fn new() -> Self {
        Self {
            pace: Pace::rested(),
            entries: BTreeMap::new(),
            order: BTreeSet::new(),
            begun: 0,
        }
    }

    pub fn has(&self, vip: IpAddr) -> bool {
        self.entries.contains_key(&vip)
    }

    /// From its first announcement on. One that waits for that already keeps its place.
    pub fn begin(&mut self, vip: IpAddr, now: BootInstant) {
        if let Some((Place::First(_), _)) = self.entries.get(&vip) {
            return;
        }
        self.begun += 1;
        self.put(vip, Place::First(self.begun), Schedule::starting(now));
    }

    pub fn end(&mut self, vip: IpAddr) {
        if let Some((place, _)) = self.entries.remove(&vip) {
            self.order.remove(&(place, vip));
        }
    }

    /// When to ask for the next.
    pub fn next_due(&self) -> Option<BootInstant> {
        let (place, _) = self.order.first()?;
        Some(match place {
            Place::First(_) => self.pace.ready_at(),
            Place::Again(due) => self.pace.ready_at().max(*due),
        })
    }

    /// The next one that is to be announced now, which counts as done.
    pub fn pop_due(&mut self, now: BootInstant) -> Option<IpAddr> {
        let &(place, vip) = self.order.first()?;
        let is_due = match place {
            Place::First(_) => true,
            Place::Again(due) => due <= now,
        };
        if !is_due || !self.pace.take(now) {
            return None;
        }
        let (_, mut schedule) = self.entries.remove(&vip)?;
        schedule.sent(now);
        self.order.remove(&(place, vip));
        self.put(vip, Place::Again(schedule.next_due()), schedule);
        Some(vip)
    }

    fn put(&mut self, vip: IpAddr, place: Place, schedule: Schedule) {
        self.end(vip);
        self.entries.insert(vip, (place, schedule));
        self.order.insert((place, vip));
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const START: BootInstant = BootInstant::from_ns(5_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    /// Numbers in no order of the addresses.
    fn vip(number: u32) -> IpAddr {
        IpAddr::from(Ipv4Addr::from_bits(number.reverse_bits()))
    }

    /// Everything until `end`, by a loop that is never late.
    fn played(queue: &mut Queue, end: BootInstant) -> Vec<(BootInstant, IpAddr)> {
        let mut sent = Vec::new();
        while let Some(due) = queue.next_due().filter(|due| *due <= end) {
            let now = due.max(sent.last().map_or(START, |(at, _)| *at));
            let vip = queue.pop_due(now).expect("it is due");
            sent.push((now, vip));
        }
        sent
    }

    fn peak(sent: &[(BootInstant, IpAddr)], within: Duration) -> usize {
        let from = |at: BootInstant| {
            let near = |other: &&(BootInstant, IpAddr)| other.0 >= at && other.0 < at + within;
            sent.iter().filter(near).count()
        };
        sent.iter().map(|(at, _)| from(*at)).max().unwrap_or(0)
    }

    #[test]
    fn three_hundred_go_in_their_order_at_the_pace_and_so_do_their_repeats() {
        let mut queue = Queue::new();
        for number in 0..300 {
            queue.begin(vip(number), START);
        }
        let sent = played(&mut queue, START + 130_000 * MS);
        assert_eq!(sent.len(), 5 * 300);
        let in_order: Vec<IpAddr> = (0..300).map(vip).collect();
        for (round, after_ms) in [0, 1_100, 2_200, 62_200, 122_200].into_iter().enumerate() {
            let round = &sent[round * 300..][..300];
            let vips: Vec<IpAddr> = round.iter().map(|(_, vip)| *vip).collect();
            if after_ms == 0 {
                assert_eq!(vips, in_order);
            }
            let (first, last) = (round[0].0, round[299].0);
            assert_eq!(first, START + after_ms * MS);
            assert!(last < first + 80 * MS, "{:?}", last.saturating_since(first));
        }
        assert!(peak(&sent, 10 * MS) <= 16 + 40, "{}", peak(&sent, 10 * MS));
    }

    #[test]
    fn a_first_announcement_waits_for_no_repeat() {
        let mut queue = Queue::new();
        for number in 0..300 {
            queue.begin(vip(number), START);
        }
        let repeats = START + 1_100 * MS;
        played(&mut queue, repeats - MS);
        // All are due again, and the loop is late.
        let now = repeats + 200 * MS;
        queue.begin(vip(300), now);
        assert_eq!(queue.pop_due(now), Some(vip(300)));
        assert!(queue.pop_due(now).is_some_and(|next| next != vip(300)));
    }

    #[test]
    fn one_that_begins_twice_is_announced_once_and_in_its_place() {
        let mut queue = Queue::new();
        for number in 0..20 {
            queue.begin(vip(number), START);
        }
        queue.begin(vip(0), START);
        queue.end(vip(1));
        let sent = played(&mut queue, START + 100 * MS);
        let vips: Vec<IpAddr> = sent.iter().map(|(_, vip)| *vip).collect();
        let wanted: Vec<IpAddr> = [0].into_iter().chain(2..20).map(vip).collect();
        assert_eq!(vips, wanted);
        assert!(!queue.has(vip(1)));
    }
}
