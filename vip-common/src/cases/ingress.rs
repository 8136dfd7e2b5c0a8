//! What comes in where the shared IPv4 address is.

use alloc::vec::Vec;

use super::*;

pub(super) fn rows(rows: &mut Vec<Case>) {
    use Expect::{Answered, Conflict, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner};
    let mut row = at_ingress(rows);
    let ask = |to| arp_frame(to, arp::REQUEST, (CLIENT_MAC, CLIENT), ([0; 6], VIP));
    let probe = || arp_frame(BROADCAST, arp::REQUEST, (CLIENT_MAC, [0; 4]), ([0; 6], VIP));
    let claim = |mac, operation| arp_frame(BROADCAST, operation, (mac, VIP), ([0; 6], VIP));
    let packet = |to| ipv4_frame(to, CLIENT_MAC, CLIENT, VIP);

    row(
        "the owner answers a broadcast request",
        Owner,
        ask(BROADCAST),
        Answered,
    );
    row(
        "the owner answers a unicast request",
        Owner,
        ask(OUR_MAC),
        Answered,
    );
    row("the owner answers a probe", Owner, probe(), Answered);
    row(
        "a request of VLAN 0 is an untagged one",
        Owner,
        tagged(&ask(BROADCAST), 0),
        Answered,
    );
    row(
        "a priority without a VLAN is untagged too",
        Owner,
        tagged(&ask(BROADCAST), 0xe000),
        Answered,
    );
    row(
        "a request of VLAN 5 is of another network",
        Owner,
        tagged(&ask(BROADCAST), 5),
        Untouched,
    );
    row(
        "a request to another machine's MAC is not for us",
        Owner,
        ask(FOREIGN_MAC),
        Untouched,
    );
    row(
        "a follower drops a request",
        Follower,
        ask(BROADCAST),
        Drops(Dropped::Stale),
    );
    row(
        "a follower drops a probe",
        Follower,
        probe(),
        Drops(Dropped::Stale),
    );
    row(
        "past its deadline an owner drops a request",
        Expired,
        ask(BROADCAST),
        Drops(Dropped::Stale),
    );

    row(
        "the owner gets packets",
        Owner,
        packet(OUR_MAC),
        Passes(Passed::Delivered),
    );
    row(
        "the owner gets broadcasts",
        Owner,
        packet(BROADCAST),
        Passes(Passed::Delivered),
    );
    row(
        "packets to another MAC are not for us",
        Follower,
        packet(FOREIGN_MAC),
        Untouched,
    );
    row(
        "a follower drops packets",
        Follower,
        packet(OUR_MAC),
        Drops(Dropped::Stale),
    );
    row(
        "a follower drops packets of VLAN 0",
        Follower,
        tagged(&packet(OUR_MAC), 0),
        Drops(Dropped::Stale),
    );
    row(
        "packets of VLAN 5 are of another network",
        Follower,
        tagged(&packet(OUR_MAC), 5),
        Untouched,
    );
    row(
        "past its deadline an owner drops packets",
        Expired,
        packet(OUR_MAC),
        Drops(Dropped::Stale),
    );

    for operation in [arp::REQUEST, arp::REPLY] {
        row(
            "a stranger's claim is a conflict to the owner",
            Owner,
            claim(FOREIGN_MAC, operation),
            Conflict,
        );
        row(
            "a member's claim is not heard by the owner",
            Owner,
            claim(MEMBER_MAC, operation),
            Drops(Dropped::Claim),
        );
        row(
            "our own claim come back is dropped",
            Owner,
            claim(OUR_MAC, operation),
            Drops(Dropped::Looped),
        );
        row(
            "a follower hears its owner",
            Follower,
            claim(OWNER_MAC, operation),
            Passes(Passed::Claim),
        );
        row(
            "a follower does not hear a member that is not the owner",
            Follower,
            claim(MEMBER_MAC, operation),
            Drops(Dropped::Claim),
        );
        row(
            "a stranger's claim is a conflict to a follower",
            Follower,
            claim(FOREIGN_MAC, operation),
            Conflict,
        );
        row(
            "without a lease the wire is believed",
            Expired,
            claim(FOREIGN_MAC, operation),
            Passes(Passed::Claim),
        );
    }
    row(
        "a reply about the VIP to somebody else's question is a claim too",
        Owner,
        arp_frame(OUR_MAC, arp::REPLY, (FOREIGN_MAC, VIP), (OUR_MAC, STRANGER)),
        Conflict,
    );
    for stage in [Owner, Follower] {
        row(
            "a claim that is told another machine is not for us",
            stage,
            arp_frame(
                MEMBER_MAC,
                arp::REPLY,
                (FOREIGN_MAC, VIP),
                (MEMBER_MAC, STRANGER),
            ),
            Untouched,
        );
    }
    row(
        "a reply to the VIP that claims nothing of it is not ours",
        Owner,
        arp_frame(OUR_MAC, arp::REPLY, (CLIENT_MAC, CLIENT), (OUR_MAC, VIP)),
        Untouched,
    );

    row(
        "other addresses' ARP is untouched",
        Follower,
        arp_frame(
            BROADCAST,
            arp::REQUEST,
            (CLIENT_MAC, CLIENT),
            ([0; 6], STRANGER),
        ),
        Untouched,
    );
    row(
        "other addresses' packets are untouched",
        Follower,
        ipv4_frame(OUR_MAC, CLIENT_MAC, CLIENT, STRANGER),
        Untouched,
    );
    row(
        "packets from the VIP are not ours to judge on ingress",
        Follower,
        ipv4_frame(OUR_MAC, OWNER_MAC, VIP, STRANGER),
        Untouched,
    );

    let spoilt = |at: usize, byte| {
        let mut frame = ask(BROADCAST);
        frame[at] = byte;
        frame
    };
    row(
        "ARP of another hardware type is untouched",
        Owner,
        spoilt(15, 6),
        Untouched,
    );
    row(
        "ARP of another protocol is untouched",
        Owner,
        spoilt(16, 0x86),
        Untouched,
    );
    row(
        "ARP with another address length is untouched",
        Owner,
        spoilt(18, 8),
        Untouched,
    );
    let ip = |version_and_length| {
        let mut frame = packet(OUR_MAC);
        frame[14] = version_and_length;
        frame
    };
    row(
        "IP of another version is untouched",
        Follower,
        ip(0x65),
        Untouched,
    );
    row(
        "IP with a header too short is untouched",
        Follower,
        ip(0x44),
        Untouched,
    );
    row(
        "IP with options is IP",
        Follower,
        ip(0x4f),
        Drops(Dropped::Stale),
    );
    for length in 14..42 {
        row(
            "ARP that is cut short is untouched",
            Owner,
            ask(BROADCAST)[..length].to_vec(),
            Untouched,
        );
    }
    for length in 14..34 {
        row(
            "IP that is cut short is untouched",
            Follower,
            packet(OUR_MAC)[..length].to_vec(),
            Untouched,
        );
    }
    row(
        "a follower needs no padding to know a request",
        Follower,
        ask(BROADCAST)[..42].to_vec(),
        Drops(Dropped::Stale),
    );

    drop(row);
    rows.push(Case {
        name: "a VIP of another interface is left to the guard",
        hook: Hook::Ingress,
        carrier: OTHER,
        stage: Follower,
        frame: packet(OUR_MAC),
        expect: Untouched,
    });
}
