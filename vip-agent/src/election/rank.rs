//! Who goes first when a shared IP is vacant.

use std::{collections::BTreeMap, hash::Hasher as _, net::IpAddr};

use siphasher::sip::SipHasher13;

use super::record::{Keyed, MemberRecord};

/// The place of `node` in the queue for `vip`, from 0; `None` if it is no candidate.
///
/// Every member ranks alike from what it watches: the candidates are the members that can serve
/// `vip`, ordered by a hash of the pair, so that many shared IPs spread over many nodes. A member
/// that has just given it up while alive goes last.
pub fn rank(
    members: &BTreeMap<String, Keyed<MemberRecord>>,
    vip: IpAddr,
    previous: Option<&str>,
    node: &str,
) -> Option<u32> {
    let place = |name: &str| (previous == Some(name), weight(vip, name), name.to_owned());
    let serves = |member: &Keyed<MemberRecord>| member.record.vips.contains(&vip);
    members.get(node).filter(|member| serves(member))?;
    let mine = place(node);
    let ahead = members
        .iter()
        .filter(|(name, member)| serves(member) && place(name) < mine)
        .count();
    u32::try_from(ahead).ok()
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
    use std::collections::BTreeSet;

    use super::{super::record::LeaseId, *};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

    fn members(names: &[&str], vips: &[IpAddr]) -> BTreeMap<String, Keyed<MemberRecord>> {
        names
            .iter()
            .map(|name| {
                let record = MemberRecord {
                    node: (*name).to_owned(),
                    instance: String::new(),
                    host: String::new(),
                    macs: BTreeSet::new(),
                    ttl_ms: 3000,
                    vips: vips.iter().copied().collect(),
                    version: String::new(),
                };
                let keyed = Keyed {
                    lease: LeaseId(1),
                    mod_revision: 1,
                    record,
                };
                ((*name).to_owned(), keyed)
            })
            .collect()
    }

    #[test]
    fn every_candidate_has_a_place_of_its_own() {
        let all = members(&["a", "b", "c"], &[VIP]);
        let places: BTreeSet<_> = ["a", "b", "c"]
            .iter()
            .map(|node| rank(&all, VIP, None, node))
            .collect();
        assert_eq!(places, BTreeSet::from([Some(0), Some(1), Some(2)]));
    }

    #[test]
    fn who_gave_it_up_goes_last() {
        let all = members(&["a", "b", "c"], &[VIP]);
        for node in ["a", "b", "c"] {
            assert_eq!(rank(&all, VIP, Some(node), node), Some(2));
        }
    }

    #[test]
    fn who_cannot_serve_it_is_no_candidate() {
        let mut all = members(&["a", "b"], &[VIP]);
        all.extend(members(&["c"], &[]));
        assert_eq!(rank(&all, VIP, None, "c"), None);
        assert_eq!(rank(&all, VIP, None, "stranger"), None);
        let places = [rank(&all, VIP, None, "a"), rank(&all, VIP, None, "b")];
        assert!(
            places.contains(&Some(0)) && places.contains(&Some(1)),
            "{places:?}"
        );
    }

    #[test]
    fn many_vips_spread_over_equal_nodes() {
        let vips: Vec<IpAddr> = (0..=255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let all = members(&["a", "b", "c", "d"], &vips);
        for node in ["a", "b", "c", "d"] {
            let first = vips
                .iter()
                .filter(|vip| rank(&all, **vip, None, node) == Some(0))
                .count();
            assert!(
                (40..=90).contains(&first),
                "{node} is first for {first} of 256"
            );
        }
    }
}
