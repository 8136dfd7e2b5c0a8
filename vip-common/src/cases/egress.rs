//! What goes out, about the shared IPv4 address.

use alloc::vec::Vec;

use super::*;

pub(super) fn rows(rows: &mut Vec<Case>) {
    use Expect::{Anonymised, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner, Vacant};
    let mut row = |name, carrier, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Egress,
            carrier,
            stage,
            frame,
            expect,
        });
    };
    let announce = arp_frame(BROADCAST, arp::REQUEST, (OUR_MAC, VIP), ([0; 6], VIP));
    let packet = ipv4_frame(CLIENT_MAC, OUR_MAC, VIP, CLIENT);
    row(
        "the owner announces",
        CARRIER,
        Owner,
        announce.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the owner sends",
        CARRIER,
        Owner,
        packet.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the owner may send by another way",
        OTHER,
        Owner,
        packet.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the VIP is announced only where it is",
        OTHER,
        Owner,
        announce.clone(),
        Drops(Dropped::Guarded),
    );
    let ask = arp_frame(BROADCAST, arp::REQUEST, (OUR_MAC, VIP), ([0; 6], CLIENT));
    row(
        "the owner asks for its neighbours",
        CARRIER,
        Owner,
        ask.clone(),
        Passes(Passed::Sent),
    );
    row(
        "by another way it asks in nobody's name",
        OTHER,
        Owner,
        ask.clone(),
        Anonymised,
    );
    row(
        "a tag of VLAN 0 changes nothing of that",
        OTHER,
        Owner,
        tagged(&ask, 0),
        Anonymised,
    );
    row(
        "who does not own it does not ask",
        OTHER,
        Follower,
        ask.clone(),
        Drops(Dropped::Guarded),
    );
    for stage in [Follower, Expired] {
        row(
            "nobody else announces",
            CARRIER,
            stage,
            announce.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "nobody else sends",
            CARRIER,
            stage,
            packet.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "nor by another way",
            OTHER,
            stage,
            packet.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "a tag of VLAN 0 is no way around",
            CARRIER,
            stage,
            tagged(&announce, 0),
            Drops(Dropped::Fenced),
        );
    }
    let own = ipv4_frame(CLIENT_MAC, OUR_MAC, STRANGER, VIP);
    row(
        "the host's own packets are untouched",
        CARRIER,
        Follower,
        own,
        Untouched,
    );
    for (carrier, stage, expect) in [
        (OTHER, Follower, Untouched),
        (OTHER, Owner, Passes(Passed::Sent)),
        (OTHER, Expired, Drops(Dropped::Fenced)),
        (OTHER, Vacant, Drops(Dropped::Fenced)),
        (CARRIER, Follower, Drops(Dropped::Fenced)),
    ] {
        rows.push(Case {
            name: "what its owner sends is forwarded by other interfaces",
            hook: Hook::Forward,
            carrier,
            stage,
            frame: packet.clone(),
            expect,
        });
    }
    rows.push(Case {
        name: "but no ARP",
        hook: Hook::Forward,
        carrier: OTHER,
        stage: Follower,
        frame: announce.clone(),
        expect: Drops(Dropped::Guarded),
    });
}
