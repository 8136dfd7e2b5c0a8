//! TC programs as filters of a clsact qdisc, as on a kernel without TCX.

mod stage;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Instant,
};

use nix::libc;
use stage::{
    INTERFACE, PEER, gate, ip, staged, tc, times,
    wire::{PATIENCE, Wire},
};
use vip_agent::dataplane::{Amiss, Dataplane, DataplaneError, DataplaneMode, Leftovers};
use vip_common::{abi::names, cases, frame::arp};

fn open(bpf_dir: &Path) -> Dataplane {
    stage::open(bpf_dir).without_tcx()
}

fn attach(dataplane: &mut Dataplane, ifindex: u32) {
    dataplane
        .attach(INTERFACE, ifindex, DataplaneMode::Auto)
        .expect("it attaches");
}

/// `tc`'s lines about the filters of a hook that have a program.
fn filters(hook: &str) -> Vec<String> {
    tc(&["filter", "show", "dev", INTERFACE, hook])
        .lines()
        .filter(|line| line.contains(" id "))
        .map(str::to_owned)
        .collect()
}

/// The word after another.
fn after<'a>(line: &'a str, word: &str) -> &'a str {
    let mut words = line.split(' ');
    words.find(|found| *found == word).expect("tc names it");
    words.next().expect("tc gives its value")
}

fn qdiscs() -> String {
    tc(&["qdisc", "show", "dev", INTERFACE])
}

/// An announcement of the shared IP.
fn claim() -> Vec<u8> {
    cases::arp_frame(
        cases::BROADCAST,
        arp::REQUEST,
        (cases::OUR_MAC, cases::VIP),
        ([0; 6], cases::VIP),
    )
}

fn is_fenced(wire: &mut Wire) -> bool {
    match wire.try_to_send(&claim()) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_second_start_changes_the_programs_in_place_and_the_end_leaves_nothing() {
    staged(|bpf_dir, ifindex| {
        let mut first = open(bpf_dir);
        attach(&mut first, ifindex);
        first.guard(PEER, peer()).expect("it attaches");
        let before = filters("egress");
        assert_eq!(before.len(), 1, "{before:?}");
        let name = format!("{} {}", names::EGRESS, bpf_dir.display());
        assert!(before[0].contains(&name), "{before:?}");
        assert!(before[0].contains("direct-action"), "{before:?}");
        drop(first);
        assert_eq!(filters("egress"), before, "it outlives its process");

        let mut second = open(bpf_dir);
        attach(&mut second, ifindex);
        second.guard(PEER, peer()).expect("it adopts");
        let after_it = filters("egress");
        assert_eq!(after_it.len(), 1, "{after_it:?}");
        for (word, is_same) in [("handle", true), ("pref", true), ("id", false)] {
            let [was, is] = [&before, &after_it].map(|lines| after(&lines[0], word));
            assert_eq!(was == is, is_same, "{word}: {was} {is}");
        }
        // Twice is once.
        second.guard(PEER, peer()).expect("nothing to do");
        let guards = tc(&["filter", "show", "dev", PEER, "ingress"]);
        assert_eq!(guards.matches(" handle ").count(), 1, "{guards}");
        second.drop_unused_links().expect("there are none");
        assert_eq!(filters("egress"), after_it);
        second.close().expect("all of it can go");
        assert!(!tc(&["qdisc", "show"]).contains("clsact"));
        assert!(!bpf_dir.exists());
    });
}

#[test]
fn a_shut_gate_lets_no_frame_out_while_the_program_is_changed() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    static FENCED: AtomicU32 = AtomicU32::new(0);
    staged(|bpf_dir, ifindex| {
        let vip = cases::VIP.into();
        let mut first = open(bpf_dir);
        first
            .put_gate(vip, gate(ifindex, 0))
            .expect("there is room");
        attach(&mut first, ifindex);
        drop(first);
        let mut wire = Wire::open_on(INTERFACE);
        let flood = thread::spawn(move || {
            while !IS_OVER.load(Ordering::Relaxed) {
                assert!(is_fenced(&mut wire), "a frame got out");
                FENCED.fetch_add(1, Ordering::Relaxed);
            }
            wire
        });
        for _ in 0..times(30) {
            let before = FENCED.load(Ordering::Relaxed);
            attach(&mut open(bpf_dir), ifindex);
            let deadline = Instant::now() + PATIENCE;
            while FENCED.load(Ordering::Relaxed) < before + 100 {
                assert!(!flood.is_finished() && Instant::now() < deadline);
                thread::yield_now();
            }
        }
        IS_OVER.store(true, Ordering::Relaxed);
        let mut wire = flood.join().expect("all were fenced");

        let mut last = open(bpf_dir);
        attach(&mut last, ifindex);
        last.put_gate(vip, gate(ifindex, u64::MAX))
            .expect("it is there");
        last.set_lease_deadline_ns(u64::MAX);
        let mut peer = Wire::open();
        assert!(!is_fenced(&mut wire), "the gate is open");
        let deadline = Instant::now() + PATIENCE;
        while peer.heard() != Some(claim()) {
            assert!(Instant::now() < deadline, "it was sent");
        }
        last.put_gate(vip, gate(ifindex, 0)).expect("it is there");
        assert!(is_fenced(&mut wire));
        last.close().expect("all of it can go");
        assert!(!is_fenced(&mut wire), "nothing fences any more");
    });
}

#[test]
fn a_filter_that_somebody_removed_or_changed_is_missed_and_attached_again() {
    staged(|bpf_dir, ifindex| {
        let mut dataplane = open(bpf_dir);
        attach(&mut dataplane, ifindex);
        assert!(dataplane.look_after().is_empty());
        let by_hand: [&[&str]; 2] = [
            &["filter", "del", "dev", INTERFACE, "egress"],
            &["qdisc", "del", "dev", INTERFACE, "clsact"],
        ];
        for command in by_hand {
            tc(command);
            let amiss = dataplane.look_after();
            let [Amiss::Detached { ifindex: at, .. }] = &amiss[..] else {
                panic!("{amiss:?}");
            };
            assert_eq!(*at, ifindex);
            assert!(dataplane.look_after().is_empty(), "it is told once");
            attach(&mut dataplane, ifindex);
            assert_eq!(filters("egress").len(), 1);
        }
        assert!(dataplane.look_after().is_empty());
        dataplane.close().expect("all of it can go");
        assert!(!qdiscs().contains("clsact"), "it was made again by us");
    });
}

#[test]
fn what_others_have_there_stays() {
    staged(|bpf_dir, ifindex| {
        tc(&["qdisc", "add", "dev", INTERFACE, "clsact"]);
        let foreign = ["match", "u32", "0", "0", "flowid", "1:1"];
        let add = ["filter", "add", "dev", INTERFACE, "egress", "u32"];
        tc(&[&add[..], &foreign[..]].concat());
        let shown = || tc(&["filter", "show", "dev", INTERFACE, "egress"]);
        let before = shown();
        let other_dir = bpf_dir.with_file_name("another");
        let (mut one, mut other) = (open(bpf_dir), open(&other_dir));
        one.guard(INTERFACE, ifindex).expect("it attaches");
        other.guard(INTERFACE, ifindex).expect("beside the other");
        assert_eq!(filters("egress").len(), 2, "{}", shown());
        assert_eq!(filters("ingress").len(), 2);
        assert!(one.look_after().is_empty() && other.look_after().is_empty());
        one.close().expect("all of it can go");
        assert!(other.look_after().is_empty());
        assert_eq!(filters("egress").len(), 1);
        other.forget_interface(ifindex);
        assert_eq!(shown(), before);
        assert!(qdiscs().contains("clsact"));
        // Whoever made it takes an empty one away.
        tc(&["filter", "del", "dev", INTERFACE, "egress"]);
        other.guard(INTERFACE, ifindex).expect("it attaches");
        other.close().expect("all of it can go");
        assert!(qdiscs().contains("clsact"));
    });
}

#[test]
fn an_interface_without_room_for_clsact_is_refused_by_name() {
    staged(|bpf_dir, ifindex| {
        tc(&["qdisc", "add", "dev", INTERFACE, "ingress"]);
        let mut dataplane = open(bpf_dir);
        let refused = dataplane.attach(INTERFACE, ifindex, DataplaneMode::Auto);
        let Err(error @ DataplaneError::Tc { .. }) = refused else {
            panic!("{refused:?}");
        };
        let line = error.to_string();
        assert!(
            line.contains(INTERFACE) && line.contains("`ingress`"),
            "{line}"
        );
        assert!(qdiscs().contains("ingress"));
        // Another kind of filter at our place.
        tc(&["qdisc", "del", "dev", INTERFACE, "ingress"]);
        tc(&["qdisc", "add", "dev", INTERFACE, "clsact"]);
        tc(&[
            "filter", "add", "dev", INTERFACE, "egress", "pref", "1", "u32", "match", "u32", "0",
            "0", "flowid", "1:1",
        ]);
        let refused = dataplane.attach(INTERFACE, ifindex, DataplaneMode::Auto);
        let line = refused.expect_err("it is taken").to_string();
        assert!(line.contains("priority 1"), "{line}");
        dataplane.close().expect("all of it can go");
        assert!(qdiscs().contains("clsact"));
    });
}

#[test]
fn what_an_earlier_process_left_is_detached() {
    staged(|bpf_dir, ifindex| {
        let leave = || {
            let mut dataplane = open(bpf_dir);
            dataplane.guard(INTERFACE, ifindex).expect("it attaches");
        };
        leave();
        let mut second = open(bpf_dir);
        second.drop_unused_links().expect("they can go");
        assert!(!qdiscs().contains("clsact"));
        second.close().expect("the rest can go");

        leave();
        clean_up(bpf_dir);
        assert!(!qdiscs().contains("clsact"));
        assert!(!bpf_dir.exists());

        // They stand without pins too.
        leave();
        fs::remove_dir_all(bpf_dir).expect("it is there");
        clean_up(bpf_dir);
        assert!(!qdiscs().contains("clsact"));
        let left = Leftovers::find(bpf_dir).expect("it can be looked for");
        assert!(left.is_none());
    });
}

#[test]
fn an_interface_that_has_gone_is_forgotten() {
    staged(|bpf_dir, ifindex| {
        let mut dataplane = open(bpf_dir);
        attach(&mut dataplane, ifindex);
        ip(&["link", "del", INTERFACE]);
        let amiss = dataplane.look_after();
        assert!(
            amiss
                .iter()
                .all(|one| matches!(one, Amiss::Detached { .. })),
            "{amiss:?}"
        );
        dataplane.forget_interface(ifindex);
        assert!(dataplane.look_after().is_empty());
        dataplane.close().expect("all of it can go");
    });
}

fn clean_up(bpf_dir: &Path) {
    let left = Leftovers::find(bpf_dir).expect("nobody is there");
    let left = left.expect("something is");
    left.take_away().expect("root may");
}

fn peer() -> u32 {
    nix::net::if_::if_nametoindex(PEER).expect("the stage has it")
}
