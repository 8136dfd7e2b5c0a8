//! What comes in elsewhere, about the shared IPv4 address.

use alloc::vec::Vec;

use super::*;

pub(super) fn rows(rows: &mut Vec<Case>) {
    use Expect::{Conflict, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner, Vacant};
    let mut row = |name, carrier, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Guard,
            carrier,
            stage,
            frame,
            expect,
        });
    };
    let ask = arp_frame(BROADCAST, arp::REQUEST, (CLIENT_MAC, CLIENT), ([0; 6], VIP));
    let packet = ipv4_frame(GUARDED_MAC, CLIENT_MAC, CLIENT, VIP);
    let claim = |mac| arp_frame(BROADCAST, arp::REQUEST, (mac, VIP), ([0; 6], VIP));
    for stage in [Owner, Follower] {
        row(
            "no other interface hears a request",
            OTHER,
            stage,
            ask.clone(),
            Drops(Dropped::Guarded),
        );
        row(
            "a VIP of this interface is left to XDP",
            CARRIER,
            stage,
            ask.clone(),
            Untouched,
        );
        row(
            "a stranger's claim is a conflict here too",
            OTHER,
            stage,
            claim(FOREIGN_MAC),
            Conflict,
        );
        row(
            "our own announcement, heard by the other NIC, is dropped",
            OTHER,
            stage,
            claim(OUR_MAC),
            Drops(Dropped::Looped),
        );
    }
    for stage in [Owner, Follower] {
        for (name, frame) in [
            (
                "a packet to another machine's MAC is not for us",
                ipv4_frame(FOREIGN_MAC, CLIENT_MAC, CLIENT, VIP),
            ),
            (
                "nor is a request to it",
                arp_frame(
                    FOREIGN_MAC,
                    arp::REQUEST,
                    (CLIENT_MAC, CLIENT),
                    ([0; 6], VIP),
                ),
            ),
            (
                "nor a claim that it is told",
                arp_frame(
                    FOREIGN_MAC,
                    arp::REPLY,
                    (MEMBER_MAC, VIP),
                    (FOREIGN_MAC, CLIENT),
                ),
            ),
        ] {
            row(name, OTHER, stage, frame, Untouched);
        }
    }
    row(
        "a routed packet may come in anywhere",
        OTHER,
        Owner,
        packet.clone(),
        Passes(Passed::Delivered),
    );
    for stage in [Expired, Vacant] {
        row(
            "a closed gate is closed everywhere",
            OTHER,
            stage,
            packet.clone(),
            Drops(Dropped::Stale),
        );
    }
    row(
        "what is another machine's is forwarded to it",
        OTHER,
        Follower,
        packet,
        Untouched,
    );
    let other = ipv4_frame(GUARDED_MAC, CLIENT_MAC, CLIENT, STRANGER);
    row(
        "other addresses are untouched",
        OTHER,
        Follower,
        other,
        Untouched,
    );
}
