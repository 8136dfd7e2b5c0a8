//! Real frames: to other machines' MACs, and of VLANs.

mod stage;

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Instant,
};

use aya::programs::XdpMode;
use nix::net::if_::if_nametoindex;
use stage::{
    INTERFACE, PEER, foreign_xdp, gate, has_tcx, ip, open, staged, strip_vlan_tags, tcx, vlan,
    wire::{PATIENCE, Wire},
};
use vip_agent::dataplane::{Attached, Dataplane, DataplaneMode};
use vip_common::{abi::Counters, cases, frame::arp};

/// The asker of the last request, after which all others are through.
const LAST: [u8; 4] = [10, 0, 0, 200];

fn request(to: [u8; 6], asker: [u8; 4]) -> Vec<u8> {
    cases::arp_frame(
        to,
        arp::REQUEST,
        (cases::CLIENT_MAC, asker),
        ([0; 6], cases::VIP),
    )
}

fn take_our_mac(interface: &str) {
    let [a, b, c, d, e, f] = cases::OUR_MAC;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    ip(&["link", "set", interface, "address", &mac]);
}

/// Attached, at [`cases::OUR_MAC`], under a lease that does not end.
fn attached(bpf_dir: &Path, ifindex: u32, mode: Attached) -> Dataplane {
    take_our_mac(INTERFACE);
    strip_vlan_tags(INTERFACE, false);
    let mut dataplane = open(bpf_dir);
    dataplane.set_lease_deadline_ns(u64::MAX);
    let wanted = match mode {
        Attached::Native => DataplaneMode::Native,
        Attached::Generic => DataplaneMode::Generic,
        Attached::Tc => DataplaneMode::Tc,
    };
    let attachment = dataplane
        .attach(INTERFACE, ifindex, wanted)
        .expect("it attaches");
    assert_eq!(attachment.mode, mode);
    dataplane
}

fn counters(dataplane: &Dataplane) -> Counters {
    counters_of(dataplane, cases::VIP)
}

fn counters_of(dataplane: &Dataplane, vip: impl Into<IpAddr>) -> Counters {
    dataplane.counters(vip.into()).expect("it has a row")
}

/// Who of those that asked is answered: `(asker, frame)`.
fn asked(wire: &mut Wire, frames: &[([u8; 4], Vec<u8>)]) -> Vec<[u8; 4]> {
    for (_, frame) in frames {
        wire.send(frame);
    }
    wire.send(&request(cases::BROADCAST, LAST));
    let mut answered = wire.answered_until(LAST);
    answered.pop();
    answered
}

fn an_owner_answers_only_what_is_for_it(bpf_dir: &Path, ifindex: u32, mode: Attached) {
    let mut dataplane = attached(bpf_dir, ifindex, mode);
    // `XDP_TX` on a veth needs a program at the other end.
    let _peer = foreign_xdp(PEER, XdpMode::Driver);
    dataplane
        .put_gate(cases::VIP.into(), gate(ifindex, u64::MAX))
        .expect("there is room");
    let mut wire = Wire::open();
    let broadcast = |asker| request(cases::BROADCAST, asker);
    let ip = |last| [10, 0, 0, last];
    let frames = [
        (ip(1), broadcast(ip(1))),
        (ip(2), request(cases::OUR_MAC, ip(2))),
        (ip(3), request(cases::FOREIGN_MAC, ip(3))),
        (ip(4), cases::tagged(&broadcast(ip(4)), 5)),
        (ip(5), cases::tagged(&broadcast(ip(5)), 0)),
        (ip(6), cases::tagged(&broadcast(ip(6)), 0xe000)),
        (ip(7), cases::tagged(&request(cases::FOREIGN_MAC, ip(7)), 0)),
    ];
    assert_eq!(asked(&mut wire, &frames), [ip(1), ip(2), ip(5), ip(6)]);
    let expected = Counters {
        answered: 5,
        // From TC the answers go out by the egress program.
        sent: if mode == Attached::Tc { 5 } else { 0 },
        ..Counters::default()
    };
    assert_eq!(counters(&dataplane), expected);
    dataplane.close().expect("all of it can go");
}

#[test]
fn an_owner_answers_only_what_is_for_it_native() {
    staged(|bpf_dir, ifindex| {
        an_owner_answers_only_what_is_for_it(bpf_dir, ifindex, Attached::Native)
    });
}

#[test]
fn an_owner_answers_only_what_is_for_it_generic() {
    staged(|bpf_dir, ifindex| {
        an_owner_answers_only_what_is_for_it(bpf_dir, ifindex, Attached::Generic)
    });
}

#[test]
fn an_owner_answers_only_what_is_for_it_tc() {
    staged(|bpf_dir, ifindex| an_owner_answers_only_what_is_for_it(bpf_dir, ifindex, Attached::Tc));
}

#[test]
fn an_owner_answers_beside_another_xdp_program() {
    staged(|bpf_dir, ifindex| {
        let _foreign = foreign_xdp(INTERFACE, XdpMode::Driver);
        an_owner_answers_only_what_is_for_it(bpf_dir, ifindex, Attached::Tc)
    });
}

/// Linux forgets where a packet begins that it copied for generic XDP, so that TC cannot rewrite it. 6.1 does not.
#[test]
fn behind_generic_xdp_the_owner_s_kernel_answers() {
    staged(|bpf_dir, ifindex| {
        let _foreign = foreign_xdp(INTERFACE, XdpMode::Skb);
        let mut dataplane = attached(bpf_dir, ifindex, Attached::Tc);
        ip(&["address", "add", "10.0.0.100/24", "dev", INTERFACE]);
        let mut wire = Wire::open();
        dataplane
            .put_gate(cases::VIP.into(), gate(ifindex, 0))
            .expect("there is room");
        wire.send(&request(cases::BROADCAST, [10, 0, 0, 1]));
        let deadline = Instant::now() + PATIENCE;
        while counters(&dataplane).stale == 0 {
            assert!(Instant::now() < deadline, "{:?}", counters(&dataplane));
        }
        dataplane
            .put_gate(cases::VIP.into(), gate(ifindex, u64::MAX))
            .expect("it stands");
        wire.send(&request(cases::BROADCAST, LAST));
        assert_eq!(wire.answered_until(LAST), [LAST]);
        let Counters {
            answered,
            delivered,
            ..
        } = counters(&dataplane);
        assert_eq!(answered + delivered, 1, "{answered} {delivered}");
        dataplane.close().expect("all of it can go");
    });
}

/// A program that accepts a frame keeps it from those behind it.
#[test]
fn a_program_that_accepts_all_keeps_nothing_from_the_fence() {
    staged(|bpf_dir, ifindex| {
        if !has_tcx() {
            eprintln!("skipped: this kernel has no TCX");
            return;
        }
        let _foreign = tcx::accept_all_on_egress(ifindex);
        let mut dataplane = attached(bpf_dir, ifindex, Attached::Native);
        dataplane
            .put_gate(cases::VIP.into(), gate(ifindex, 0))
            .expect("there is room");
        let claim = cases::arp_frame(
            cases::BROADCAST,
            arp::REQUEST,
            (cases::OUR_MAC, cases::VIP),
            ([0; 6], cases::VIP),
        );
        let sent = Wire::open_on(INTERFACE).try_to_send(&claim);
        let error = sent.expect_err("the gate is shut");
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOBUFS));
        dataplane.close().expect("all of it can go");
    });
}

#[test]
fn tc_knows_a_stripped_tag() {
    staged(|bpf_dir, ifindex| {
        let mut dataplane = attached(bpf_dir, ifindex, Attached::Tc);
        dataplane
            .put_gate(cases::VIP.into(), gate(ifindex, u64::MAX))
            .expect("there is room");
        let mut wire = Wire::open();
        let peer = if_nametoindex(PEER).expect("the stage has it");
        let stripping = vlan::push_on_egress(peer, 5);
        wire.send(&request(cases::BROADCAST, [10, 0, 0, 1]));
        drop(stripping);
        let stripping = vlan::push_on_egress(peer, 0);
        wire.send(&request(cases::BROADCAST, [10, 0, 0, 2]));
        drop(stripping);
        wire.send(&request(cases::BROADCAST, LAST));
        assert_eq!(wire.answered_until(LAST), [[10, 0, 0, 2], LAST]);
        dataplane.close().expect("all of it can go");
    });
}

/// Linux has taken the tag off before a bridge or a macvlan sees the frame.
fn an_interface_above_others_knows_their_tags(bpf_dir: &Path, above: &str) {
    strip_vlan_tags(INTERFACE, false);
    take_our_mac(above);
    ip(&["link", "set", above, "up"]);
    let ifindex = if_nametoindex(above).expect("it was just made");
    let mut dataplane = open(bpf_dir);
    dataplane.set_lease_deadline_ns(u64::MAX);
    let refused = dataplane
        .attach(above, ifindex, DataplaneMode::Generic)
        .expect_err("it would take tagged frames for untagged ones");
    assert!(refused.to_string().contains("VLAN tags"), "{refused}");
    let attachment = dataplane
        .attach(above, ifindex, DataplaneMode::Auto)
        .expect("it attaches");
    assert_eq!(attachment.mode, Attached::Tc, "{attachment:?}");
    dataplane
        .put_gate(cases::VIP.into(), gate(ifindex, u64::MAX))
        .expect("there is room");
    let mut wire = Wire::open();
    // A bridge's port takes a moment before it forwards.
    let deadline = Instant::now() + PATIENCE;
    while counters(&dataplane).answered == 0 {
        assert!(Instant::now() < deadline, "{:?}", counters(&dataplane));
        wire.send(&request(cases::BROADCAST, [10, 0, 0, 1]));
    }
    let ip = |last| [10, 0, 0, last];
    wire.send(&cases::tagged(&request(cases::BROADCAST, ip(5)), 5));
    wire.send(&cases::tagged(&request(cases::BROADCAST, ip(6)), 0));
    wire.send(&request(cases::BROADCAST, LAST));
    let mut answered = wire.answered_until(LAST);
    answered.retain(|asker| *asker != ip(1));
    assert_eq!(answered, [ip(6), LAST]);
    dataplane.close().expect("all of it can go");
}

#[test]
fn a_bridge_knows_its_ports_tags() {
    staged(|bpf_dir, _| {
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["link", "set", INTERFACE, "master", "br0"]);
        an_interface_above_others_knows_their_tags(bpf_dir, "br0");
    });
}

#[test]
fn a_macvlan_knows_the_tags_of_what_it_lies_on() {
    staged(|bpf_dir, _| {
        ip(&[
            "link", "add", "mv0", "link", INTERFACE, "type", "macvlan", "mode", "bridge",
        ]);
        an_interface_above_others_knows_their_tags(bpf_dir, "mv0");
    });
}

/// An answer is longer than some questions and shorter than others.
fn solicitations_of_any_length_are_answered(bpf_dir: &Path, ifindex: u32, mode: Attached) {
    let mut dataplane = attached(bpf_dir, ifindex, mode);
    let _peer = foreign_xdp(PEER, XdpMode::Driver);
    dataplane
        .put_gate(Ipv6Addr::from(cases::VIP6).into(), gate(ifindex, u64::MAX))
        .expect("there is room");
    let mut wire = Wire::open();
    let own = cases::link_layer(1, cases::CLIENT_MAC);
    let nonce = vec![14, 1, 1, 2, 3, 4, 5, 6];
    for options in [vec![], own.clone(), [own, nonce.clone(), nonce].concat()] {
        let group = cases::solicited_node(cases::VIP6);
        let client = (cases::CLIENT_MAC, cases::CLIENT6);
        let question = cases::solicitation(group, client, cases::VIP6, &options);
        let answer = cases::advertisement(
            client,
            (cases::OUR_MAC, cases::VIP6),
            0x60,
            cases::VIP6,
            &cases::link_layer(2, cases::OUR_MAC),
        );
        wire.send(&question);
        let deadline = Instant::now() + PATIENCE;
        while wire.heard() != Some(answer.clone()) {
            assert!(Instant::now() < deadline, "{} octets", question.len());
        }
    }
    assert_eq!(counters_of(&dataplane, cases::VIP6).answered, 3);
    dataplane.close().expect("all of it can go");
}

#[test]
fn solicitations_of_any_length_are_answered_native() {
    staged(|bpf_dir, ifindex| {
        solicitations_of_any_length_are_answered(bpf_dir, ifindex, Attached::Native)
    });
}

#[test]
fn solicitations_of_any_length_are_answered_generic() {
    staged(|bpf_dir, ifindex| {
        solicitations_of_any_length_are_answered(bpf_dir, ifindex, Attached::Generic)
    });
}

#[test]
fn solicitations_of_any_length_are_answered_tc() {
    staged(|bpf_dir, ifindex| {
        let _foreign = foreign_xdp(INTERFACE, XdpMode::Driver);
        solicitations_of_any_length_are_answered(bpf_dir, ifindex, Attached::Tc)
    });
}

/// Not what one would wish for, but so it is, and said in the README: XDP sees no tag that is kept
/// beside the frame.
fn a_stripped_tag_is_not_seen(bpf_dir: &Path, ifindex: u32, mode: Attached) {
    let mut dataplane = attached(bpf_dir, ifindex, mode);
    // `XDP_TX` on a veth needs a program at the other end.
    let _peer = foreign_xdp(PEER, XdpMode::Driver);
    dataplane
        .put_gate(cases::VIP.into(), gate(ifindex, u64::MAX))
        .expect("there is room");
    let mut wire = Wire::open();
    let stripping = vlan::push_on_egress(if_nametoindex(PEER).expect("the stage has it"), 5);
    wire.send(&request(cases::BROADCAST, LAST));
    assert_eq!(wire.answered_until(LAST), [LAST]);
    drop(stripping);
    dataplane.close().expect("all of it can go");
}

#[test]
fn a_stripped_tag_is_not_seen_native() {
    staged(|bpf_dir, ifindex| a_stripped_tag_is_not_seen(bpf_dir, ifindex, Attached::Native));
}

#[test]
fn a_stripped_tag_is_not_seen_generic() {
    staged(|bpf_dir, ifindex| a_stripped_tag_is_not_seen(bpf_dir, ifindex, Attached::Generic));
}

/// In the stack a tag is taken off the frame before the guard sees it, whoever takes it off.
fn a_guard_judges_only_what_is_for_us_and_of_no_vlan(bpf_dir: &Path, ifindex: u32, mode: Attached) {
    let mut dataplane = attached(bpf_dir, ifindex, mode);
    dataplane
        .guard(INTERFACE, ifindex)
        .expect("it attaches beside the other");
    let elsewhere = if_nametoindex(PEER).expect("the stage has it");
    dataplane
        .put_gate(cases::VIP.into(), gate(elsewhere, 0))
        .expect("there is room");
    let ask = request(cases::BROADCAST, [10, 0, 0, 1]);
    let mut wire = Wire::open();
    wire.send(&request(cases::FOREIGN_MAC, [10, 0, 0, 1]));
    wire.send(&cases::tagged(&ask, 5));
    let stripping = vlan::push_on_egress(elsewhere, 5);
    wire.send(&ask);
    drop(stripping);
    wire.send(&cases::tagged(&ask, 0));
    let stripping = vlan::push_on_egress(elsewhere, 0);
    wire.send(&ask);
    drop(stripping);
    wire.send(&ask);
    wire.send(&cases::ipv4_frame(
        cases::OUR_MAC,
        cases::CLIENT_MAC,
        cases::CLIENT,
        cases::VIP,
    ));
    let deadline = Instant::now() + PATIENCE;
    while counters(&dataplane).stale == 0 {
        assert!(Instant::now() < deadline, "{:?}", counters(&dataplane));
    }
    let expected = Counters {
        guarded: 3,
        stale: 1,
        ..Counters::default()
    };
    assert_eq!(counters(&dataplane), expected);
    dataplane.close().expect("all of it can go");
}

#[test]
fn a_guard_beside_native_xdp() {
    staged(|bpf_dir, ifindex| {
        a_guard_judges_only_what_is_for_us_and_of_no_vlan(bpf_dir, ifindex, Attached::Native)
    });
}

#[test]
fn a_guard_beside_generic_xdp() {
    staged(|bpf_dir, ifindex| {
        a_guard_judges_only_what_is_for_us_and_of_no_vlan(bpf_dir, ifindex, Attached::Generic)
    });
}

/// A container that claims the address on its bridge must not make us deaf to who does on the network.
#[test]
fn what_is_told_of_a_guarded_interface_keeps_nothing_waiting() {
    staged(|bpf_dir, ifindex| {
        let mut dataplane = attached(bpf_dir, ifindex, Attached::Native);
        dataplane
            .guard(INTERFACE, ifindex)
            .expect("it attaches beside the other");
        let elsewhere = if_nametoindex(PEER).expect("the stage has it");
        let mut wire = Wire::open();
        for carrier in [elsewhere, ifindex] {
            dataplane
                .put_gate(cases::VIP.into(), gate(carrier, 0))
                .expect("there is room");
            wire.send(&cases::arp_frame(
                cases::BROADCAST,
                arp::REQUEST,
                (cases::FOREIGN_MAC, cases::VIP),
                ([0; 6], cases::VIP),
            ));
            let deadline = Instant::now() + PATIENCE;
            let event = loop {
                match dataplane.event_at_hand() {
                    Some(event) => break event,
                    None => assert!(Instant::now() < deadline, "{:?}", counters(&dataplane)),
                }
            };
            assert_eq!((event.mac, event.op), (cases::FOREIGN_MAC, arp::REQUEST));
        }
        assert_eq!(counters(&dataplane).conflicts, 2);
        dataplane.close().expect("all of it can go");
    });
}
