//! The shared IPv6 addresses: packets to and from them, and neighbour discovery.

use alloc::{vec, vec::Vec};

use super::{
    Expect::{Answered, Conflict, Dropped as Drops, Passed as Passes, Untouched},
    Stage::{Expired, Follower, Owner, Router, Vacant},
    *,
};
use crate::frame::ipv6::{ALL_NODES, ALL_NODES_MAC, UNSPECIFIED};

const CLIENT_AT: (Mac, Address) = (CLIENT_MAC, CLIENT6);
const NOBODY: (Mac, Address) = (CLIENT_MAC, UNSPECIFIED);
const EVERYBODY: (Mac, Address) = (ALL_NODES_MAC, ALL_NODES);
const HOP_LIMIT_AT: usize = 21;
const CHECKSUM_AT: usize = 56;
const CODE_AT: usize = 55;
const FLAGS_AT: usize = 58;

pub(super) fn rows(rows: &mut Vec<Case>) {
    questions(rows);
    invalid_questions(rows);
    claims(rows);
    packets(rows);
    guarded(rows);
    sent(rows);
}

/// The client asks for `target` as a host does that has nothing in its cache.
fn ask(target: Address) -> Vec<u8> {
    solicitation(
        solicited_node(target),
        CLIENT_AT,
        target,
        &link_layer(1, CLIENT_MAC),
    )
}

/// Somebody looks whether `target` is free (RFC 4862 §5.4.2).
fn probe(target: Address) -> Vec<u8> {
    solicitation(solicited_node(target), NOBODY, target, &[])
}

fn questions(rows: &mut Vec<Case>) {
    let mut row = at_ingress(rows);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let with_nonce = [link_layer(1, CLIENT_MAC), nonce.to_vec()].concat();
    let nonce_first = [nonce.to_vec(), link_layer(1, CLIENT_MAC)].concat();
    let group = solicited_node(VIP6);
    let us = (OUR_MAC, VIP6);
    for stage in [Owner, Router] {
        for (name, frame) in [
            ("the owner answers a solicitation", ask(VIP6)),
            ("and one for a link-local address", ask(LINK_LOCAL_VIP)),
            (
                "and one without a link-layer address",
                solicitation(group, CLIENT_AT, VIP6, &[]),
            ),
            (
                "and one to its own address, as of a host that sees whether it is still there",
                solicitation(us, CLIENT_AT, VIP6, &link_layer(1, CLIENT_MAC)),
            ),
            (
                "that without a link-layer address too",
                solicitation(us, CLIENT_AT, VIP6, &[]),
            ),
            ("and who looks whether the address is free", probe(VIP6)),
            (
                "also with a nonce",
                solicitation(group, NOBODY, VIP6, &nonce),
            ),
            (
                "and options behind the link-layer address",
                solicitation(group, CLIENT_AT, VIP6, &with_nonce),
            ),
            (
                "and before it",
                solicitation(group, CLIENT_AT, VIP6, &nonce_first),
            ),
            (
                "and as many as are looked at",
                solicitation(group, CLIENT_AT, VIP6, &[nonce; 4].concat()),
            ),
            (
                "a solicitation of VLAN 0 is an untagged one",
                tagged(&ask(VIP6), 0),
            ),
            ("so is one with a priority", tagged(&probe(VIP6), 0xe000)),
        ] {
            row(name, stage, frame, Answered);
        }
    }
    row(
        "what follows the packet is none of it",
        Owner,
        [ask(VIP6), vec![0xff; 6]].concat(),
        Answered,
    );
    for stage in [Follower, Expired, Vacant] {
        for frame in [ask(VIP6), probe(VIP6), ask(LINK_LOCAL_VIP)] {
            row("nobody else does", stage, frame, Drops(Dropped::Stale));
        }
    }
    for stage in [Owner, Follower] {
        for (name, frame) in [
            (
                "a solicitation of VLAN 5 is of another network",
                tagged(&ask(VIP6), 5),
            ),
            (
                "one to another machine's MAC is not for us",
                solicitation((FOREIGN_MAC, VIP6), CLIENT_AT, VIP6, &[]),
            ),
            ("one for another address is untouched", ask(STRANGER6)),
            (
                "one for the IPv4 address in disguise is untouched",
                ask(VipKey::v4(VIP).addr),
            ),
        ] {
            row(name, stage, frame, Untouched);
        }
    }
    row(
        "one for another address, sent to the shared one, is a packet to that",
        Follower,
        solicitation(us, CLIENT_AT, STRANGER6, &[]),
        Drops(Dropped::Stale),
    );
}

fn invalid_questions(rows: &mut Vec<Case>) {
    let mut row = at_ingress(rows);
    let group = solicited_node(VIP6);
    let changed = |frame: &[u8], at: usize, to: u8| {
        let mut frame = frame.to_vec();
        frame[at] = to;
        put_checksum(&mut frame);
        frame
    };
    let good = ask(VIP6);
    let mut wrong_sum = good.clone();
    wrong_sum[CHECKSUM_AT] ^= 1;
    let mut options = link_layer(1, CLIENT_MAC);
    options[1] = 0;
    let no_length = solicitation(group, CLIENT_AT, VIP6, &options);
    options[1] = 2;
    let past_the_end = solicitation(group, CLIENT_AT, VIP6, &options);
    let eui64 = solicitation(
        group,
        CLIENT_AT,
        VIP6,
        &[1, 2, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let a_half = solicitation(group, CLIENT_AT, VIP6, &[1, 1, 2, 0]);
    let too_many = solicitation(
        group,
        CLIENT_AT,
        VIP6,
        &[[14, 1, 0, 0, 0, 0, 0, 0]; 5].concat(),
    );
    // A destination options header of eight bytes before the message (RFC 8200 §4.6).
    let mut extended = ipv6_frame(group, CLIENT_AT, 60, &[]);
    extended.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&good[54..]);
    extended[19] = u8::try_from(extended.len() - 54).expect("it is short");
    extended[HOP_LIMIT_AT] = 255;
    for stage in [Owner, Follower] {
        for (name, frame) in [
            (
                "it came through a router",
                changed(&good, HOP_LIMIT_AT, 254),
            ),
            ("its checksum is wrong", wrong_sum.clone()),
            ("its code is not 0", changed(&good, CODE_AT, 1)),
            ("it is about a group", ask(ALL_NODES)),
            ("it is cut short by its length", changed(&good, 19, 23)),
            ("an option has no length", no_length.clone()),
            ("an option is longer than the message", past_the_end.clone()),
            ("its link-layer address is no Ethernet's", eui64.clone()),
            ("it ends within an option", a_half.clone()),
            ("it has more options than are looked at", too_many.clone()),
            (
                "nobody's question names a link-layer address",
                solicitation(group, NOBODY, VIP6, &link_layer(1, CLIENT_MAC)),
            ),
            (
                "nobody's question goes to all nodes",
                solicitation(EVERYBODY, NOBODY, VIP6, &[]),
            ),
            ("it lies behind another header", extended.clone()),
            ("it is another message", changed(&good, 54, 133)),
            ("it is no ICMPv6", changed(&good, 20, 17)),
            ("it is no IPv6", changed(&good, 14, 0x45)),
        ] {
            row(name, stage, frame, Untouched);
        }
        for length in 14..good.len() {
            row("it is cut short", stage, good[..length].to_vec(), Untouched);
        }
    }
    row(
        "what is no valid question and is sent to the shared IP is a packet to it",
        Follower,
        changed(
            &solicitation((OUR_MAC, VIP6), CLIENT_AT, VIP6, &[]),
            HOP_LIMIT_AT,
            64,
        ),
        Drops(Dropped::Stale),
    );
}

fn claims(rows: &mut Vec<Case>) {
    let mut row = at_ingress(rows);
    // In all the forms in which a MAC may be claimed for an address.
    let forms = |mac: Mac| {
        let at = |source| (mac, source);
        [
            advertisement(EVERYBODY, at(VIP6), 0x20, VIP6, &link_layer(2, mac)),
            advertisement(EVERYBODY, at(VIP6), 0, VIP6, &link_layer(2, mac)),
            advertisement(EVERYBODY, at(STRANGER6), 0xa0, VIP6, &link_layer(2, mac)),
            advertisement((OUR_MAC, STRANGER6), at(VIP6), 0x60, VIP6, &[]),
            advertisement(
                EVERYBODY,
                at(LINK_LOCAL_VIP),
                0x20,
                LINK_LOCAL_VIP,
                &link_layer(2, mac),
            ),
            solicitation(
                solicited_node(STRANGER6),
                at(VIP6),
                STRANGER6,
                &link_layer(1, mac),
            ),
            solicitation((OUR_MAC, STRANGER6), at(VIP6), STRANGER6, &[]),
            tagged(
                &advertisement(EVERYBODY, at(VIP6), 0x20, VIP6, &link_layer(2, mac)),
                0,
            ),
        ]
    };
    for (name, stage, mac, expect) in [
        (
            "a stranger's claim is a conflict to the owner",
            Owner,
            FOREIGN_MAC,
            Conflict,
        ),
        (
            "a member's claim is not heard by the owner",
            Owner,
            MEMBER_MAC,
            Drops(Dropped::Claim),
        ),
        (
            "our own claim come back is dropped",
            Owner,
            OUR_MAC,
            Drops(Dropped::Looped),
        ),
        (
            "a follower hears its owner",
            Follower,
            OWNER_MAC,
            Passes(Passed::Claim),
        ),
        (
            "a follower does not hear a member that is not the owner",
            Follower,
            MEMBER_MAC,
            Drops(Dropped::Claim),
        ),
        (
            "a stranger's claim is a conflict to a follower",
            Follower,
            FOREIGN_MAC,
            Conflict,
        ),
        (
            "without a lease the wire is believed",
            Expired,
            FOREIGN_MAC,
            Passes(Passed::Claim),
        ),
    ] {
        for frame in forms(mac) {
            row(name, stage, frame, expect);
        }
    }
    row(
        "who claims is who is named, not who sends",
        Follower,
        advertisement(
            EVERYBODY,
            (OWNER_MAC, VIP6),
            0x20,
            VIP6,
            &link_layer(2, FOREIGN_MAC),
        ),
        Conflict,
    );
    let claim = advertisement(
        EVERYBODY,
        (FOREIGN_MAC, VIP6),
        0x20,
        VIP6,
        &link_layer(2, FOREIGN_MAC),
    );
    let mut solicited = claim.clone();
    solicited[FLAGS_AT] = 0x60;
    put_checksum(&mut solicited);
    let long = |mac: Mac| {
        let options = [[14, 1, 0, 0, 0, 0, 0, 0]; 5].concat();
        advertisement(EVERYBODY, (mac, VIP6), 0x20, VIP6, &options)
    };
    row(
        "one too long to be checked is taken for the claim that it is",
        Follower,
        long(FOREIGN_MAC),
        Conflict,
    );
    row(
        "also if it is the owner's",
        Follower,
        long(OWNER_MAC),
        Passes(Passed::Claim),
    );
    row(
        "an advertisement to a group that claims to answer is invalid",
        Owner,
        solicited,
        Untouched,
    );
    let mut routed = claim.clone();
    routed[HOP_LIMIT_AT] = 64;
    row("one from afar is invalid", Owner, routed, Untouched);
    row(
        "one that another machine is told is not for us",
        Owner,
        advertisement(
            (MEMBER_MAC, STRANGER6),
            (FOREIGN_MAC, VIP6),
            0x60,
            VIP6,
            &[],
        ),
        Untouched,
    );
    row(
        "one about another address is untouched",
        Owner,
        advertisement(
            EVERYBODY,
            (FOREIGN_MAC, STRANGER6),
            0x20,
            STRANGER6,
            &link_layer(2, FOREIGN_MAC),
        ),
        Untouched,
    );
}

fn packets(rows: &mut Vec<Case>) {
    let mut row = at_ingress(rows);
    let echo = |to: Mac, ip| icmpv6_frame((to, ip), CLIENT_AT, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let udp = |next_header| {
        ipv6_frame(
            (OUR_MAC, VIP6),
            CLIENT_AT,
            next_header,
            &[0, 7, 0, 7, 0, 8, 0, 0],
        )
    };
    for ip in [VIP6, LINK_LOCAL_VIP] {
        row(
            "the owner gets packets",
            Owner,
            echo(OUR_MAC, ip),
            Passes(Passed::Delivered),
        );
        row(
            "a follower drops them",
            Follower,
            echo(OUR_MAC, ip),
            Drops(Dropped::Stale),
        );
        row(
            "past its deadline an owner drops them",
            Expired,
            tagged(&echo(OUR_MAC, ip), 0),
            Drops(Dropped::Stale),
        );
        row(
            "those to another MAC are not for us",
            Follower,
            echo(FOREIGN_MAC, ip),
            Untouched,
        );
    }
    // Hop-by-hop options, routing, fragment, destination options, none; UDP.
    for next_header in [0, 43, 44, 60, 59, 17] {
        row(
            "whatever header follows, the address is read",
            Follower,
            udp(next_header),
            Drops(Dropped::Stale),
        );
    }
    row(
        "other addresses' packets are untouched",
        Follower,
        echo(OUR_MAC, STRANGER6),
        Untouched,
    );
    row(
        "packets from the VIP are not ours to judge on ingress",
        Follower,
        ipv6_frame((OUR_MAC, STRANGER6), (OWNER_MAC, VIP6), 17, &[0; 8]),
        Untouched,
    );
    row(
        "packets of VLAN 5 are of another network",
        Follower,
        tagged(&udp(17), 5),
        Untouched,
    );
    for length in 14..54 {
        row(
            "IPv6 that is cut short is untouched",
            Follower,
            udp(17)[..length].to_vec(),
            Untouched,
        );
    }
}

fn guarded(rows: &mut Vec<Case>) {
    let mut row = |name, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Guard,
            carrier: OTHER,
            stage,
            frame,
            expect,
        });
    };
    let claim = |mac| advertisement(EVERYBODY, (mac, VIP6), 0x20, VIP6, &link_layer(2, mac));
    let packet = |ip| ipv6_frame((GUARDED_MAC, ip), CLIENT_AT, 17, &[0; 8]);
    for stage in [Owner, Follower] {
        row(
            "no other interface hears a solicitation",
            stage,
            ask(VIP6),
            Drops(Dropped::Guarded),
        );
        row(
            "a stranger's claim is a conflict here too",
            stage,
            claim(FOREIGN_MAC),
            Conflict,
        );
        row(
            "our own announcement, heard by the other NIC, is dropped",
            stage,
            claim(OUR_MAC),
            Drops(Dropped::Looped),
        );
        row(
            "a link-local address is another one here",
            stage,
            ask(LINK_LOCAL_VIP),
            Untouched,
        );
        row(
            "and so are packets to it",
            stage,
            packet(LINK_LOCAL_VIP),
            Untouched,
        );
    }
    row(
        "a routed packet may come in anywhere",
        Owner,
        packet(VIP6),
        Passes(Passed::Delivered),
    );
    for stage in [Expired, Vacant] {
        row(
            "a closed gate is closed everywhere",
            stage,
            packet(VIP6),
            Drops(Dropped::Stale),
        );
    }
    row(
        "what is another machine's is forwarded to it",
        Follower,
        packet(VIP6),
        Untouched,
    );
}

fn sent(rows: &mut Vec<Case>) {
    let mut row = |name, hook, carrier, stage, frame: &[u8], expect| {
        rows.push(Case {
            name,
            hook,
            carrier,
            stage,
            frame: frame.to_vec(),
            expect,
        });
    };
    let at = |ip| (OUR_MAC, ip);
    let announce = advertisement(EVERYBODY, at(VIP6), 0x20, VIP6, &link_layer(2, OUR_MAC));
    let in_another_s_name = advertisement(
        EVERYBODY,
        at(STRANGER6),
        0x20,
        VIP6,
        &link_layer(2, OUR_MAC),
    );
    let ask = solicitation(
        solicited_node(CLIENT6),
        at(VIP6),
        CLIENT6,
        &link_layer(1, OUR_MAC),
    );
    let packet = ipv6_frame(CLIENT_AT, at(VIP6), 17, &[0; 8]);
    let of_the_link = ipv6_frame(CLIENT_AT, at(LINK_LOCAL_VIP), 17, &[0; 8]);
    let extended = ipv6_frame(CLIENT_AT, at(VIP6), 60, &[17, 0, 1, 4, 0, 0, 0, 0]);
    let spoken = [
        &announce,
        &in_another_s_name,
        &ask,
        &packet,
        &of_the_link,
        &extended,
    ];
    for frame in spoken {
        for (name, stage, expect) in [
            ("the owner speaks", Owner, Passes(Passed::Sent)),
            ("no follower does", Follower, Drops(Dropped::Fenced)),
            (
                "nor an owner past its deadline",
                Expired,
                Drops(Dropped::Fenced),
            ),
        ] {
            row(name, Hook::Egress, CARRIER, stage, frame, expect);
            row(
                name,
                Hook::Egress,
                CARRIER,
                stage,
                &tagged(frame, 0),
                expect,
            );
        }
    }
    for stage in [Owner, Follower, Expired] {
        for frame in [&announce, &in_another_s_name, &ask] {
            row(
                "it is announced only where it is",
                Hook::Egress,
                OTHER,
                stage,
                frame,
                Drops(Dropped::Guarded),
            );
        }
        row(
            "a link-local address is another one elsewhere",
            Hook::Egress,
            OTHER,
            stage,
            &of_the_link,
            Untouched,
        );
    }
    for (hook, stage, expect) in [
        (Hook::Egress, Owner, Passes(Passed::Sent)),
        (Hook::Egress, Follower, Drops(Dropped::Fenced)),
        (Hook::Forward, Follower, Untouched),
        (Hook::Forward, Expired, Drops(Dropped::Fenced)),
        (Hook::Forward, Vacant, Drops(Dropped::Fenced)),
    ] {
        row(
            "packets from it leave by another way",
            hook,
            OTHER,
            stage,
            &packet,
            expect,
        );
    }
    row(
        "the host's own packets are untouched",
        Hook::Egress,
        CARRIER,
        Follower,
        &ipv6_frame((OWNER_MAC, VIP6), at(STRANGER6), 17, &[0; 8]),
        Untouched,
    );
    row(
        "to look whether the address is free is to speak for nobody",
        Hook::Egress,
        CARRIER,
        Follower,
        &solicitation(solicited_node(VIP6), at(UNSPECIFIED), VIP6, &[]),
        Untouched,
    );
}
