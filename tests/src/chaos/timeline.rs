//! From when on an outage could have ended: what the bound on it counts from.

use std::time::Instant;

use super::health::Change;

/// What became of a part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent runs, or no longer does.
    Agent(usize, bool),
    /// The cable into the LAN is in, or out.
    Lan(usize, bool),
    /// The cable into etcd's network is in, or out.
    Mgmt(usize, bool),
    /// The etcd member answers, with a leader behind it, or does not.
    Etcd(usize, bool),
    /// Something was broken on purpose.
    Fault,
}

/// All that happened, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    events: Vec<(Instant, Event)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    agent: bool,
    lan: bool,
    mgmt: bool,
    etcd: bool,
}

impl Timeline {
    /// Adds what happened now.
    pub fn note(&mut self, event: Event) {
        self.events.push((Instant::now(), event));
    }

    /// With the changes in etcd's health.
    pub fn with(&self, changes: &[Change]) -> Timeline {
        let health = changes
            .iter()
            .map(|change| (change.at, Event::Etcd(change.member, change.answers)));
        let mut events: Vec<_> = self.events.iter().copied().chain(health).collect();
        events.sort_by_key(|(at, _)| *at);
        Timeline { events }
    }

    /// The last instant in an outage at which something was broken or nobody could have served: no running agent with a cable in the LAN that
    /// reached an etcd member that answers. `None` if nobody could at its end either.
    pub fn could_end_from(&self, began: Instant, ended: Instant, nodes: usize) -> Option<Instant> {
        let mut state = vec![Node::default(); nodes];
        let mut from = None;
        for (at, event) in self.events.iter().filter(|(at, _)| *at <= ended) {
            match *event {
                Event::Agent(node, up) => state[node].agent = up,
                Event::Lan(node, up) => state[node].lan = up,
                Event::Mgmt(node, up) => state[node].mgmt = up,
                Event::Etcd(node, up) => state[node].etcd = up,
                Event::Fault => from = from.map(|_| *at),
            }
            from = can_serve(&state).then(|| from.unwrap_or(*at));
        }
        from.map(|from| from.max(began))
    }
}

fn can_serve(nodes: &[Node]) -> bool {
    let reaches = |node: &Node, at: usize| {
        let own = nodes[at].etcd && std::ptr::eq(node, &raw const nodes[at]);
        own || nodes[at].etcd && node.mgmt && nodes[at].mgmt
    };
    nodes
        .iter()
        .any(|node| node.agent && node.lan && (0..nodes.len()).any(|member| reaches(node, member)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn timeline(events: &[(u64, Event)]) -> (Timeline, Instant) {
        let zero = Instant::now();
        let up = (0..2).flat_map(|node| {
            [
                Event::Agent(node, true),
                Event::Lan(node, true),
                Event::Mgmt(node, true),
            ]
        });
        let up = up.chain([Event::Etcd(0, true), Event::Etcd(1, true)]);
        let later = events
            .iter()
            .map(|(ms, event)| (zero + Duration::from_millis(*ms), *event));
        let events = up.map(|event| (zero, event)).chain(later).collect();
        (Timeline { events }, zero)
    }

    fn could_end_from_ms(began: u64, ended: u64, events: &[(u64, Event)]) -> Option<u128> {
        let (timeline, zero) = timeline(events);
        let at = |ms| zero + Duration::from_millis(ms);
        let from = timeline.could_end_from(at(began), at(ended), 2)?;
        Some((from - zero).as_millis())
    }

    #[test]
    fn with_another_fit_node_it_is_the_begin_or_the_last_fault() {
        let died = [(100, Event::Fault), (100, Event::Agent(0, false))];
        assert_eq!(could_end_from_ms(102, 900, &died), Some(102));
        let again = [
            died.as_slice(),
            &[(500, Event::Fault), (500, Event::Mgmt(0, false))],
        ]
        .concat();
        assert_eq!(could_end_from_ms(102, 900, &again), Some(500));
    }

    #[test]
    fn while_etcd_has_no_leader_nobody_could() {
        let lost = [
            (100, Event::Fault),
            (150, Event::Etcd(0, false)),
            (160, Event::Etcd(1, false)),
        ];
        assert_eq!(could_end_from_ms(102, 900, &lost), None);
        let back = [
            lost.as_slice(),
            &[(700, Event::Etcd(1, true)), (800, Event::Etcd(0, true))],
        ]
        .concat();
        assert_eq!(could_end_from_ms(102, 900, &back), Some(700));
    }

    #[test]
    fn a_node_serves_with_its_own_member_or_one_that_it_reaches() {
        let cut = [(100, Event::Etcd(0, false)), (100, Event::Agent(1, false))];
        assert_eq!(could_end_from_ms(102, 900, &cut), Some(102));
        let off = [cut.as_slice(), &[(200, Event::Mgmt(0, false))]].concat();
        assert_eq!(could_end_from_ms(102, 900, &off), None);
    }
}
