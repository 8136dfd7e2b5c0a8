//! What moves as one: a group of shared IPs, or one alone.

use std::{collections::BTreeMap, net::IpAddr};

/// A unit, known by the lowest of its addresses: that is the same on every node, whatever the group
/// is called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnitId(pub IpAddr);

/// All units of this node.
#[derive(Debug, Default)]
pub(super) struct Units {
    of: BTreeMap<IpAddr, UnitId>,
    ips: BTreeMap<UnitId, Vec<IpAddr>>,
}

impl Units {
    /// From all shared IPs, each with its group if it has one.
    pub fn new<'a>(vips: impl Iterator<Item = (IpAddr, Option<&'a str>)>) -> Self {
        let mut groups: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        let mut all: Vec<Vec<IpAddr>> = Vec::new();
        for (ip, group) in vips {
            match group {
                Some(group) => groups.entry(group).or_default().push(ip),
                None => all.push(vec![ip]),
            }
        }
        let mut units = Self::default();
        for mut ips in all.into_iter().chain(groups.into_values()) {
            ips.sort();
            let id = UnitId(ips[0]);
            units.of.extend(ips.iter().map(|ip| (*ip, id)));
            units.ips.insert(id, ips);
        }
        units
    }

    /// In the order in which vacancies are given away.
    pub fn ids(&self) -> Vec<UnitId> {
        self.ips.keys().copied().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ips.len()
    }

    /// The unit of a shared IP.
    pub fn of(&self, ip: IpAddr) -> Option<UnitId> {
        self.of.get(&ip).copied()
    }

    /// Its shared IPs, in their order.
    pub fn ips(&self, id: UnitId) -> &[IpAddr] {
        self.ips.get(&id).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_one_unit_and_the_rest_are_each_their_own() {
        let [a, b, c] =
            ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|ip| ip.parse().expect("an address"));
        let units = Units::new([(c, Some("web")), (b, None), (a, Some("web"))].into_iter());
        assert_eq!(units.ids(), [UnitId(a), UnitId(b)]);
        assert_eq!(units.ips(UnitId(a)), [a, c]);
        assert_eq!(units.of(c), Some(UnitId(a)));
        assert_eq!(units.ips(UnitId(b)), [b]);
        assert_eq!(units.of([10, 0, 0, 9].into()), None);
    }
}
