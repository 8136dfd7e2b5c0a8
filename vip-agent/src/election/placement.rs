//! Who should hold what: the order in which members may take a unit.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    hash::Hasher as _,
    net::IpAddr,
};

use siphasher::sip::SipHasher13;

use super::record::{DrainRecord, Keyed, LeaseId, MemberRecord};

/// The members with what each holds, as far as one node knows: what all know at one revision is the
/// same, so all rank alike.
#[derive(Debug)]
pub(super) struct Placement<'a> {
    members: &'a BTreeMap<String, Keyed<MemberRecord>>,
    drained: &'a BTreeMap<String, DrainRecord>,
    names: BTreeMap<i64, &'a str>,
    load: BTreeMap<&'a str, usize>,
}

impl<'a> Placement<'a> {
    /// Of members that hold nothing.
    pub fn new(
        members: &'a BTreeMap<String, Keyed<MemberRecord>>,
        drained: &'a BTreeMap<String, DrainRecord>,
    ) -> Self {
        let names = members.iter().map(|(name, one)| (one.lease.0, &**name));
        Self {
            members,
            drained,
            names: names.collect(),
            load: BTreeMap::new(),
        }
    }

    /// One more shared IP is on this lease.
    pub fn count_on(&mut self, lease: LeaseId) {
        if let Some(name) = self.names.get(&lease.0).copied() {
            *self.load.entry(name).or_default() += 1;
        }
    }

    /// A node holds so many more.
    pub fn count(&mut self, node: &str, shared_ips: usize) {
        if let Some((name, _)) = self.members.get_key_value(node) {
            *self.load.entry(name).or_default() += shared_ips;
        }
    }

    /// So many go from one node to another.
    pub fn hand(&mut self, from: &str, to: &str, shared_ips: usize) {
        if let Some(load) = self.load.get_mut(from) {
            *load = load.saturating_sub(shared_ips);
        }
        self.count(to, shared_ips);
    }

    /// How many shared IPs a node holds.
    pub fn load(&self, node: &str) -> usize {
        self.load.get(node).copied().unwrap_or(0)
    }

    /// A node's priority for a unit: the highest that it has for one of it.
    pub fn priority(&self, node: &str, unit: &[IpAddr]) -> Option<u8> {
        let record = &self.members.get(node)?.record;
        unit.iter().map(|ip| record.priority(*ip)).max()
    }

    /// Whether a node may take a unit: a member that can serve all of it, and is not drained.
    pub fn is_candidate(&self, node: &str, unit: &[IpAddr]) -> bool {
        let serves = |vips: &BTreeSet<IpAddr>| unit.iter().all(|ip| vips.contains(ip));
        let member = self.members.get(node);
        member.is_some_and(|member| serves(&member.record.vips)) && !self.drained.contains_key(node)
    }

    /// The candidates for a unit, who should have it first: by priority, then who holds least, then by a
    /// hash of the pair. Who has just given it up while alive (`previous`) goes last.
    pub fn queue(&self, unit: &[IpAddr], previous: Option<&str>) -> Vec<&'a str> {
        let Some(first) = unit.first() else {
            return Vec::new();
        };
        let candidates = self.members.keys().map(|name| &**name);
        let mut queue: Vec<&str> = candidates
            .filter(|name| self.is_candidate(name, unit))
            .collect();
        queue.sort_by_cached_key(|name| {
            (
                previous == Some(*name),
                Reverse(self.priority(name, unit)),
                self.load(name),
                weight(*first, name),
                *name,
            )
        });
        queue
    }
}

/// The same on every machine and in every version: SipHash-1-3 with a zero key.
fn weight(vip: IpAddr, node: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    match vip {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(node.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{super::record::DEFAULT_PRIORITY, *};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

    fn member(
        name: &str,
        lease: i64,
        vips: &[IpAddr],
        priority: u8,
    ) -> (String, Keyed<MemberRecord>) {
        let priorities = vips.iter().map(|vip| (*vip, priority));
        let record = MemberRecord {
            vips: vips.iter().copied().collect(),
            priorities: priorities.collect(),
            ..MemberRecord::nobody(name)
        };
        let keyed = Keyed {
            lease: LeaseId(lease),
            mod_revision: 1,
            record,
        };
        (name.to_owned(), keyed)
    }

    fn members(names: &[&str], vips: &[IpAddr]) -> BTreeMap<String, Keyed<MemberRecord>> {
        let numbered = (1..).zip(names);
        numbered
            .map(|(lease, name)| member(name, lease, vips, DEFAULT_PRIORITY))
            .collect()
    }

    #[test]
    fn every_candidate_has_a_place_of_its_own() {
        let (all, drained) = (members(&["a", "b", "c"], &[VIP]), BTreeMap::new());
        let queue = Placement::new(&all, &drained).queue(&[VIP], None);
        assert_eq!(BTreeSet::from_iter(queue), BTreeSet::from(["a", "b", "c"]));
    }

    #[test]
    fn who_cannot_serve_or_is_drained_has_none() {
        let mut all = members(&["a", "b", "c"], &[VIP]);
        all.get_mut("a").expect("there").record.vips.clear();
        let drained = BTreeMap::from([("b".to_owned(), DrainRecord::default())]);
        assert_eq!(Placement::new(&all, &drained).queue(&[VIP], None), ["c"]);
    }

    #[test]
    fn who_cannot_serve_all_of_a_unit_cannot_have_it() {
        let other = IpAddr::from([10, 0, 0, 101]);
        let mut all = members(&["a", "b"], &[VIP, other]);
        all.get_mut("a").expect("there").record.vips.remove(&other);
        let drained = BTreeMap::new();
        assert_eq!(
            Placement::new(&all, &drained).queue(&[VIP, other], None),
            ["b"]
        );
    }

    #[test]
    fn who_gave_it_up_goes_last_whatever_its_priority() {
        let all = BTreeMap::from([member("a", 1, &[VIP], 200), member("b", 2, &[VIP], 1)]);
        let drained = BTreeMap::new();
        let placement = Placement::new(&all, &drained);
        assert_eq!(placement.queue(&[VIP], None), ["a", "b"]);
        assert_eq!(placement.queue(&[VIP], Some("a")), ["b", "a"]);
    }

    #[test]
    fn priority_goes_before_load_and_load_before_the_hash() {
        let all = BTreeMap::from([
            member("a", 1, &[VIP], 150),
            member("b", 2, &[VIP], 100),
            member("c", 3, &[VIP], 100),
        ]);
        let drained = BTreeMap::new();
        for (fuller, expected) in [("b", ["a", "c", "b"]), ("c", ["a", "b", "c"])] {
            let mut placement = Placement::new(&all, &drained);
            placement.count("a", 9);
            placement.count(fuller, 1);
            assert_eq!(placement.queue(&[VIP], None), expected);
        }
    }

    #[test]
    fn three_hundred_vacancies_are_spread_evenly_whatever_was_held() {
        let vips: Vec<IpAddr> = (0..300_u16)
            .map(|n| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]))
            .collect();
        let (all, drained) = (members(&["a", "b", "c"], &vips), BTreeMap::new());
        let mut placement = Placement::new(&all, &drained);
        placement.count_on(LeaseId(1));
        placement.count_on(LeaseId(99));
        for vip in &vips[1..] {
            let queue = placement.queue(&[*vip], None);
            placement.count(queue[0], 1);
        }
        for name in ["a", "b", "c"] {
            assert_eq!(placement.load(name), 100, "{name}");
        }
    }
}
