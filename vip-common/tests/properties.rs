//! What holds for every frame, of whatever bytes and up to the length of a jumbo frame: nothing is read
//! or written out of bounds, and what is answered is a right answer, as an independent parser sees it.

use std::net::Ipv6Addr;

use pnet::packet::{
    Packet as _,
    arp::{ArpOperations, ArpPacket},
    ethernet::{EtherTypes, EthernetPacket},
    icmpv6::{
        Icmpv6Types, checksum,
        ndp::{NdpOptionTypes, NeighborAdvertFlags, NeighborAdvertPacket},
    },
    ip::IpNextHeaderProtocols,
    ipv6::Ipv6Packet,
    vlan::VlanPacket,
};
use proptest::{prelude::*, sample::Index};
use vip_common::{
    cases::{self, Host, Stage, any_frame, any_stage},
    reply,
    verdict::{self, Protocol, Question, Verdict},
};

/// The longest frame that is tried, as long as jumbo frames are.
const LONGEST: usize = 9_000;

#[test]
fn every_frame_is_judged_and_every_answer_is_right() {
    let answered = std::cell::Cell::new(0);
    let config = ProptestConfig {
        cases: 50_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(frame in any_frame(LONGEST), stage in any_stage(), forwarded: bool, for_us: bool, carries: bool)| {
        let carrier = if carries { cases::CARRIER } else { cases::OTHER };
        let around = Host { stage, carrier, forwarded };
        verdict::egress(frame.as_slice(), &around);
        verdict::guard(frame.as_slice(), for_us, &around);
        let verdict = verdict::ingress(frame.as_slice(), &around);
        if let Verdict::Answer { question, mac, is_router, .. } = verdict {
            prop_assert!(matches!(stage, Stage::Owner | Stage::Router), "{stage:?}");
            let mut answer = frame.clone();
            if let Some(length) = reply::answer_len(question) {
                answer.resize(length, 0);
            }
            let written = reply::answer(answer.as_mut_slice(), question, mac, is_router);
            prop_assert_eq!(written, Some(()));
            check_answer(&frame, &answer, question, stage)?;
            answered.set(answered.get() + 1);
        }
    });
    assert!(
        answered.get() > 2_000,
        "only {} were answered",
        answered.get()
    );
}

/// A question that was found in one frame and is put to another one: nothing is written past its end.
#[test]
fn no_answer_is_written_past_the_end() {
    let questions: Vec<(Question, usize)> = cases::table()
        .iter()
        .filter_map(
            |case| match verdict::ingress(case.frame.as_slice(), &Host::of(case)) {
                Verdict::Answer { question, .. } => {
                    let length = reply::answer_len(question).unwrap_or(case.frame.len());
                    Some((question, length))
                }
                _ => None,
            },
        )
        .collect();
    proptest!(|(which: Index, length in 0..120_usize)| {
        let (question, whole) = questions[which.index(questions.len())];
        let mut frame = vec![0; length];
        let written = reply::answer(frame.as_mut_slice(), question, cases::OUR_MAC, false);
        // ARP's answer needs no padding.
        let shortest = if reply::answer_len(question).is_some() { whole } else { whole - 18 };
        prop_assert_eq!(written.is_some(), length >= shortest, "{} of {}", length, shortest);
    });
}

fn check_answer(
    asked: &[u8],
    answer: &[u8],
    question: Question,
    stage: Stage,
) -> Result<(), TestCaseError> {
    let ethernet = EthernetPacket::new(answer).expect("it has a header");
    prop_assert_eq!(ethernet.get_source().octets(), cases::OUR_MAC);
    let mut kind = ethernet.get_ethertype();
    let mut payload = ethernet.payload();
    let vlan = VlanPacket::new(payload).expect("it is longer");
    if kind == EtherTypes::Vlan {
        prop_assert_eq!(vlan.get_vlan_identifier(), 0);
        kind = vlan.get_ethertype();
        payload = &payload[4..];
    }
    match question.protocol {
        Protocol::Arp => {
            prop_assert_eq!(kind, EtherTypes::Arp);
            prop_assert_eq!(answer.len(), asked.len());
            let arp = ArpPacket::new(payload).expect("it is long enough");
            prop_assert_eq!(arp.get_operation(), ArpOperations::Reply);
            prop_assert_eq!(arp.get_sender_proto_addr().octets(), cases::VIP);
            prop_assert_eq!(arp.get_sender_hw_addr().octets(), cases::OUR_MAC);
            prop_assert_eq!(arp.get_target_hw_addr(), ethernet.get_destination());
        }
        Protocol::Solicitation => {
            prop_assert_eq!(kind, EtherTypes::Ipv6);
            check_advertisement(&ethernet, payload, question.to, stage)?;
        }
    }
    Ok(())
}

fn check_advertisement(
    ethernet: &EthernetPacket<'_>,
    payload: &[u8],
    to: [u8; 6],
    stage: Stage,
) -> Result<(), TestCaseError> {
    let ipv6 = Ipv6Packet::new(payload).expect("it is long enough");
    prop_assert_eq!(ipv6.get_version(), 6);
    prop_assert_eq!(ipv6.get_hop_limit(), 255);
    prop_assert_eq!(ipv6.get_next_header(), IpNextHeaderProtocols::Icmpv6);
    prop_assert_eq!(usize::from(ipv6.get_payload_length()), payload.len() - 40);
    let icmpv6 = pnet::packet::icmpv6::Icmpv6Packet::new(ipv6.payload()).expect("it is longer");
    let (source, destination) = (ipv6.get_source(), ipv6.get_destination());
    prop_assert_eq!(
        icmpv6.get_checksum(),
        checksum(&icmpv6, &source, &destination)
    );
    prop_assert_eq!(icmpv6.get_icmpv6_type(), Icmpv6Types::NeighborAdvert);
    let advert = NeighborAdvertPacket::new(ipv6.payload()).expect("it is one");
    let target = advert.get_target_addr();
    let shared = [cases::VIP6, cases::LINK_LOCAL_VIP].map(Ipv6Addr::from);
    prop_assert!(shared.contains(&target), "{}", target);
    prop_assert_eq!(source, target);
    let mut flags = NeighborAdvertFlags::Override;
    if stage == Stage::Router {
        flags |= NeighborAdvertFlags::Router;
    }
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    if destination == all_nodes {
        prop_assert_eq!(
            ethernet.get_destination().octets(),
            [0x33, 0x33, 0, 0, 0, 1]
        );
    } else {
        flags |= NeighborAdvertFlags::Solicited;
        prop_assert_eq!(ethernet.get_destination().octets(), to);
    }
    prop_assert_eq!(advert.get_flags(), flags);
    let options = advert.get_options();
    prop_assert_eq!(options.len(), 1);
    prop_assert_eq!(options[0].option_type, NdpOptionTypes::TargetLLAddr);
    prop_assert_eq!(&options[0].data[..6], cases::OUR_MAC);
    Ok(())
}
