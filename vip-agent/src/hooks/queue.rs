//! In which order hooks run.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use super::Kind;

/// How many run at once.
const AT_ONCE: usize = 4;
/// Of these hooks of conflicts: one that hangs is not to keep a take-over's waiting.
const CONFLICTS_AT_ONCE: usize = 2;

/// What waits, and what runs. Of one shared IP one hook runs at a time; what happens to it meanwhile waits, and what
/// waits gives way to what is newer. Conflicts have a row of their own beside it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    rows: BTreeMap<Row, T>,
    order: VecDeque<Row>,
    running: BTreeSet<Row>,
}

/// What keeps its order: all that changes the state of a shared IP, or all conflicts about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    vip: IpAddr,
    is_conflict: bool,
}

impl Row {
    pub fn of(kind: Kind, vip: IpAddr) -> Self {
        Self {
            vip,
            is_conflict: kind == Kind::Conflict,
        }
    }
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            order: VecDeque::new(),
            running: BTreeSet::new(),
        }
    }

    /// Adds what happened last. Returns what waited there and is no longer true; `None` only takes that out.
    pub fn put(&mut self, row: Row, newest: Option<T>) -> Option<T> {
        match newest {
            Some(newest) => {
                let old = self.rows.insert(row, newest);
                if old.is_none() {
                    self.order.push_back(row);
                }
                old
            }
            None => {
                self.order.retain(|one| *one != row);
                self.rows.remove(&row)
            }
        }
    }

    /// What is to be begun now, the longest-waiting first, but states before conflicts. It runs until it is
    /// [`ended`](Self::ended).
    pub fn next(&mut self) -> Option<(Row, T)> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let conflicts = self.running.iter().filter(|row| row.is_conflict).count();
        let may_begin =
            |row: &Row, is_conflict| row.is_conflict == is_conflict && !self.running.contains(row);
        let state = self.order.iter().position(|row| may_begin(row, false));
        let conflict = || {
            let found = self.order.iter().position(|row| may_begin(row, true));
            found.filter(|_| conflicts < CONFLICTS_AT_ONCE)
        };
        let row = self.order.remove(state.or_else(conflict)?)?;
        self.running.insert(row);
        Some((row, self.rows.remove(&row)?))
    }

    pub fn ended(&mut self, row: Row) {
        self.running.remove(&row);
    }

    /// What waits.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        self.rows.values()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(last_octet: u8) -> Row {
        Row::of(Kind::BecomeOwner, IpAddr::from([10, 0, 0, last_octet]))
    }

    fn conflict(last_octet: u8) -> Row {
        Row::of(Kind::Conflict, IpAddr::from([10, 0, 0, last_octet]))
    }

    fn begun(queue: &mut Queue<u8>) -> Vec<u8> {
        std::iter::from_fn(|| queue.next())
            .map(|(_, what)| what)
            .collect()
    }

    #[test]
    fn of_one_shared_ip_one_runs_and_the_newest_of_the_rest_waits() {
        let mut queue = Queue::new();
        assert_eq!(queue.put(row(7), Some(1)), None);
        assert_eq!(begun(&mut queue), [1]);
        assert_eq!(queue.put(row(7), Some(2)), None);
        assert_eq!(queue.put(row(7), Some(3)), Some(2));
        assert_eq!(begun(&mut queue), [] as [u8; 0]);
        queue.ended(row(7));
        assert_eq!(begun(&mut queue), [3]);
        queue.ended(row(7));
        assert_eq!(begun(&mut queue), [] as [u8; 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_no_longer_true_is_not_run_although_nothing_takes_its_place() {
        let mut queue = Queue::new();
        queue.put(row(7), Some(1));
        assert_eq!(queue.put(row(7), None), Some(1));
        assert_eq!(begun(&mut queue), [] as [u8; 0]);
        queue.put(row(8), Some(2));
        assert_eq!(begun(&mut queue), [2]);
    }

    #[test]
    fn four_run_at_once_in_the_order_in_which_they_came() {
        let mut queue = Queue::new();
        for n in (0..6).rev() {
            queue.put(row(n), Some(n));
        }
        assert_eq!(begun(&mut queue), [5, 4, 3, 2]);
        queue.ended(row(3));
        assert_eq!(begun(&mut queue), [1]);
        // Newer news of one that waits keep its place.
        queue.put(row(9), Some(9));
        queue.put(row(0), Some(10));
        queue.ended(row(5));
        queue.ended(row(4));
        assert_eq!(begun(&mut queue), [10, 9]);
    }

    #[test]
    fn conflicts_that_hang_leave_room_for_take_overs_and_do_not_hold_up_those_of_their_own() {
        let mut queue = Queue::new();
        for n in 0..5 {
            queue.put(conflict(n), Some(n));
        }
        assert_eq!(begun(&mut queue), [0, 1]);
        queue.put(row(0), Some(10));
        queue.put(row(9), Some(11));
        queue.put(row(8), Some(12));
        assert_eq!(begun(&mut queue), [10, 11]);
        queue.ended(conflict(0));
        assert_eq!(begun(&mut queue), [12]);
    }
}
