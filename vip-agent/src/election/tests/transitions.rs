//! The way of a shared IP from one node to another, a lease's, and a process'.

use super::*;

#[test]
fn what_was_only_found_vacant_is_waited_out() {
    let mut rig = Rig::joined();
    rig.pass_confirming(2750);
    assert_eq!(rig.claims(), 0);
    rig.pass_confirming(250);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn the_longest_ttl_in_use_is_waited_out_not_our_own() {
    let mut rig = Rig::start(Inheritance::default());
    let mut slow = member("n2", OTHERS, 5);
    slow.record.ttl_ms = 9000;
    rig.tell(Event::Read(rig.snapshot(&[slow], &[])));
    rig.tell(Event::Granted {
        sent_at: at_ms(0),
        lease: LEASE,
        ttl: TTL,
    });
    rig.tell(Event::Joined(Outcome::Committed { revision: 11 }));
    rig.revision = 11;
    rig.pass_confirming(8750);
    assert_eq!(rig.claims(), 0);
    rig.pass_confirming(250);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn a_take_over_adds_the_address_then_opens_then_announces() {
    let mut rig = Rig::joined();
    rig.pass_confirming(3000);
    rig.did
        .retain(|action| matches!(action, Action::Claim { .. }));
    rig.answer_claim();
    assert_eq!(rig.steps(), ["claim", "add address", "open", "announce"]);
}

#[test]
fn a_vacancy_that_was_watched_is_claimed_by_rank() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
    assert_eq!(rig.role(), Role::Follower);
    rig.watch(Change::OwnerGone {
        vip: vip(),
        revision: 13,
    });
    assert_eq!(rig.claims(), 1, "the only member is first in line");
}

#[test]
fn the_second_in_line_waits_one_step_and_looks_again() {
    for winner_shows_up in [false, true] {
        let mut rig = Rig::joined();
        rig.watch(Change::MemberPut("n2".to_owned(), member("n2", OTHERS, 12)));
        rig.watch(Change::OwnerPut(vip(), owned_by(NODE, LeaseId(1), 13)));
        rig.watch(Change::OwnerGone {
            vip: vip(),
            revision: 14,
        });
        assert_eq!(rig.claims(), 0, "who had it last is last in line");
        if winner_shows_up {
            rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 15)));
        }
        rig.pass(30);
        assert_eq!(rig.claims(), usize::from(!winner_shows_up));
    }
}

#[test]
fn a_key_that_bears_our_name_on_another_lease_is_not_ours() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by(NODE, OTHERS, 12)));
    assert_eq!(rig.role(), Role::Follower);
    assert!(!rig.steps().contains(&"open"));
}

#[test]
fn a_give_up_shuts_the_gate_then_takes_the_address_then_the_key() {
    let mut rig = Rig::owner();
    rig.tell(Event::Stop(Stop::Release));
    // It offers nothing any more, and says so.
    rig.answer_join();
    rig.tell(Event::Released(
        vip(),
        Outcome::Committed {
            revision: rig.revision + 1,
        },
    ));
    rig.tell(Event::Left);
    let steps = rig.steps();
    assert_eq!(
        steps,
        [
            "close",
            "remove address",
            "release",
            "leave",
            "close all",
            "exit"
        ]
    );
}

#[test]
fn a_hold_touches_nothing() {
    let mut rig = Rig::owner();
    rig.tell(Event::Stop(Stop::Hold));
    assert_eq!(rig.steps(), ["exit"]);
    assert!(!rig.did.contains(&Action::Remember(None)));
}

#[test]
fn a_stop_ends_although_etcd_never_answers() {
    let mut rig = Rig::owner();
    rig.tell(Event::Stop(Stop::Release));
    assert!(!rig.steps().contains(&"exit"));
    rig.pass(8000);
    assert_eq!(
        rig.steps(),
        ["close", "remove address", "release", "close all", "exit"]
    );
}

#[test]
fn the_owner_shuts_its_gate_on_seeing_its_key_go_or_change() {
    for change in [
        Change::OwnerGone {
            vip: vip(),
            revision: 20,
        },
        Change::OwnerPut(vip(), owned_by("n2", OTHERS, 20)),
    ] {
        let mut rig = Rig::owner();
        rig.watch(change);
        assert_eq!(rig.steps()[..2], ["close", "remove address"]);
    }
}

#[test]
fn a_lost_lease_shuts_all_gates_first_and_a_new_one_is_asked_for_last() {
    let mut rig = Rig::owner();
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, Duration::ZERO, TERM, false);
    let steps = rig.steps();
    assert!(
        steps.contains(&"close all") && steps.contains(&"remove address"),
        "{steps:?}"
    );
    let position = |wanted: fn(&Action) -> bool| rig.did.iter().position(wanted);
    let removed = position(|action| matches!(action, Action::RemoveAddress(_)));
    let asked = position(|action| matches!(action, Action::Grant { .. }));
    assert!(asked.is_some() && removed < asked, "{:?}", rig.did);
}

#[test]
fn renewals_of_a_deposed_leader_do_not_move_the_deadline() {
    let mut rig = Rig::owner();
    let before = rig.deadline();
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, TTL, TERM + 1, true);
    assert_eq!(rig.deadline(), before);
    assert!(rig.take_round().is_some(), "the next is sent at once");
}

#[test]
fn the_deadline_counts_from_the_sending_not_from_the_answer() {
    let mut rig = Rig::owner();
    rig.pass(500);
    let sent_at = at_ms(rig.now_ms);
    let round = rig.take_round().expect("a round is due");
    rig.pass(400);
    rig.answer(round, TTL, TERM, true);
    assert_eq!(rig.deadline(), sent_at + Duration::from_millis(2500));
}

#[test]
fn past_its_deadline_an_owner_is_suspended_and_a_late_confirmation_announces_it_again() {
    let mut rig = Rig::owner();
    rig.pass(2500);
    assert_eq!(rig.role(), Role::Suspended);
    assert_eq!(
        rig.steps(),
        [""; 0],
        "address and sockets stay while the lease may live"
    );
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, TTL, TERM, true);
    assert_eq!(rig.role(), Role::Owner);
    assert_eq!(rig.steps(), ["announce"]);
}

#[test]
fn a_confirmation_without_our_owner_key_shuts_that_gate_before_the_deadline_moves() {
    let mut rig = Rig::owner();
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.revision += 1;
    let snapshot = rig.snapshot(
        &[member(NODE, LEASE, 11)],
        &[owned_by("n2", OTHERS, rig.revision)],
    );
    rig.tell(Event::Renewed {
        round,
        ttl: TTL,
        raft_term: TERM,
    });
    rig.tell(Event::Confirmed { round, snapshot });
    let position = |wanted: fn(&Action) -> bool| rig.did.iter().position(wanted);
    let shut = position(|action| matches!(action, Action::SetGate(_, Gate::Closed { .. })));
    let moved = position(|action| matches!(action, Action::SetLeaseDeadline(_)));
    assert!(shut.is_some() && shut < moved, "{:?}", rig.did);
}

#[test]
fn a_restart_goes_on_with_lease_and_open_gate() {
    let mut rig = Rig::start(Inheritance {
        lease: Some(LEASE),
        deadline: at_ms(2000),
        open_gates: BTreeMap::from([(vip(), 9)]),
        ..Inheritance::default()
    });
    assert!(
        rig.steps().is_empty(),
        "an adopted gate is left alone until etcd was read"
    );
    rig.tell(Event::Read(rig.snapshot(
        &[member(NODE, LEASE, 8)],
        &[owned_by(NODE, LEASE, 9)],
    )));
    assert_eq!(rig.steps(), ["add address", "open", "announce"]);
    assert_eq!(rig.role(), Role::Owner);
    assert!(
        !rig.did
            .iter()
            .any(|action| matches!(action, Action::Grant { .. }))
    );
}

#[test]
fn a_restart_does_not_believe_a_store_that_is_older_than_what_it_gave_away() {
    let history = History {
        cluster_id: 1,
        revision: 50,
    };
    let mut rig = Rig::start(Inheritance {
        lease: Some(LEASE),
        deadline: at_ms(2000),
        history,
        ..Inheritance::default()
    });
    // Restored from before the shared IP was handed over: whoever has it since serves to its deadline.
    rig.tell(Event::Read(rig.snapshot(
        &[member(NODE, LEASE, 8)],
        &[owned_by(NODE, LEASE, 9)],
    )));
    rig.pass_confirming(2000);
    assert!(!rig.steps().contains(&"reassert"), "{:?}", rig.steps());
    rig.pass_confirming(2000);
    assert!(rig.steps().contains(&"reassert"), "{:?}", rig.steps());
}

#[test]
fn a_closed_gate_that_was_adopted_opens_only_on_a_new_revision() {
    let mut rig = Rig::start(Inheritance {
        lease: Some(LEASE),
        deadline: at_ms(2000),
        open_gates: BTreeMap::new(),
        ..Inheritance::default()
    });
    rig.tell(Event::Read(rig.snapshot(
        &[member(NODE, LEASE, 8)],
        &[owned_by(NODE, LEASE, 9)],
    )));
    assert_eq!(rig.steps(), ["close", "remove address", "reassert"]);
    rig.tell(Event::Reasserted(
        vip(),
        Outcome::Committed { revision: 11 },
    ));
    assert_eq!(rig.steps()[3..], ["add address", "open", "announce"]);
}

#[test]
fn a_restart_whose_lease_has_gone_takes_the_old_gate_down_before_it_asks_for_another() {
    let mut rig = Rig::start(Inheritance {
        lease: Some(LEASE),
        deadline: at_ms(2000),
        open_gates: BTreeMap::from([(vip(), 9)]),
        ..Inheritance::default()
    });
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    assert_eq!(rig.steps()[..2], ["close", "remove address"]);
    assert!(matches!(
        rig.did.last(),
        Some(Action::Grant { .. } | Action::Report(_))
    ));
    assert!(rig.did.contains(&Action::Grant { ttl: TTL }));
}

#[test]
fn another_machine_of_our_name_is_refused_at_once() {
    let mut rig = Rig::start(Inheritance::default());
    let mut namesake = member(NODE, OTHERS, 5);
    namesake.record.instance = "another".to_owned();
    namesake.record.macs = BTreeSet::from([OTHERS_MAC]);
    rig.tell(Event::Read(rig.snapshot(&[namesake.clone()], &[])));
    rig.tell(Event::Granted {
        sent_at: at_ms(0),
        lease: LEASE,
        ttl: TTL,
    });
    rig.tell(Event::Left);
    assert!(rig.did.contains(&Action::Exit(Exit::NameTaken {
        other: namesake.record
    })));
    assert!(
        !rig.did
            .iter()
            .any(|action| matches!(action, Action::Join { .. }))
    );
}

#[test]
fn what_this_machine_left_behind_is_waited_for() {
    is_waited_for(past());
    // It lost its carrier before its power.
    let mut without_mac = past();
    without_mac.record.macs.clear();
    is_waited_for(without_mac);
}

fn past() -> Keyed<MemberRecord> {
    let mut past = member(NODE, OTHERS, 5);
    past.record.instance = "before the reboot".to_owned();
    past
}

/// With a lease, and somebody of its name in its place.
fn met_its_past(past: Keyed<MemberRecord>) -> Rig {
    let mut rig = Rig::start(Inheritance::default());
    rig.tell(Event::Read(rig.snapshot(&[past], &[])));
    rig.tell(Event::Granted {
        sent_at: at_ms(0),
        lease: LEASE,
        ttl: TTL,
    });
    rig
}

fn is_waited_for(past: Keyed<MemberRecord>) {
    let mut rig = met_its_past(past);
    assert!(
        !rig.did
            .iter()
            .any(|action| matches!(action, Action::Join { .. }))
    );
    rig.watch(Change::MemberGone {
        node: NODE.to_owned(),
        revision: 11,
    });
    rig.pass(500);
    assert!(rig.did.iter().any(|action| matches!(
        action,
        Action::Join {
            replacing: None,
            ..
        }
    )));
}

#[test]
fn an_address_that_cannot_be_added_is_given_to_others() {
    let mut rig = Rig::joined();
    rig.pass_confirming(3000);
    rig.did.clear();
    rig.revision += 1;
    // Straight to the election: the rig would answer that it was added.
    let now = at_ms(rig.now_ms);
    rig.election.handle(
        now,
        Event::Claimed(
            vip(),
            Outcome::Committed {
                revision: rig.revision,
            },
        ),
    );
    rig.tell(Event::AddressFailed(vip(), "no such device".to_owned()));
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
}

#[test]
fn it_asks_to_be_woken_only_for_what_lies_ahead() {
    let mut rig = Rig::owner();
    for _ in 0..20 {
        let next = rig
            .election
            .next_timeout()
            .expect("an owner always has something to do");
        assert!(next > at_ms(rig.now_ms));
        rig.pass(100);
    }
}

#[test]
fn an_owner_whose_interface_can_no_longer_serve_gives_it_to_others() {
    let mut rig = Rig::owner();
    rig.tell(Event::Fitness(vip(), unable()));
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
}

#[test]
fn an_owner_with_a_new_mac_announces_it_and_writes_it_down() {
    let mut rig = Rig::owner();
    rig.tell(Event::Fitness(vip(), Fitness::Fit(Mac([2, 0, 0, 0, 0, 9]))));
    assert_eq!(rig.steps(), ["announce", "reassert"]);
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Reasserted(vip(), Outcome::Committed { revision }));
    assert_eq!(rig.steps()[2..], ["open"], "on the new revision");
    assert_eq!(rig.role(), Role::Owner);
}

#[test]
fn a_lost_answer_about_the_new_mac_does_not_shut_the_gate() {
    let mut rig = Rig::owner();
    rig.tell(Event::Fitness(vip(), Fitness::Fit(Mac([2, 0, 0, 0, 0, 9]))));
    let lost = Outcome::Unknown("no answer".to_owned());
    rig.tell(Event::Reasserted(vip(), lost));
    assert_eq!(rig.role(), Role::Owner);
    assert!(!rig.steps().contains(&"close"));
    assert!(rig.did.contains(&Action::Read));
}

#[test]
fn what_an_earlier_configuration_held_is_given_up() {
    let unconfigured = IpAddr::from([10, 0, 0, 200]);
    let mut rig = Rig::start(Inheritance {
        lease: Some(LEASE),
        ..Inheritance::default()
    });
    let mut snapshot = rig.snapshot(&[member(NODE, LEASE, 8)], &[]);
    snapshot
        .owners
        .insert(unconfigured, owned_by(NODE, LEASE, 9));
    rig.tell(Event::Read(snapshot));
    assert!(rig.did.contains(&Action::Release {
        vip: unconfigured,
        version: owned_by(NODE, LEASE, 9).version(),
    }));
}

#[test]
fn a_record_in_our_place_that_cannot_be_read_is_not_run_against() {
    let mut rig = Rig::start(Inheritance::default());
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    rig.tell(Event::Granted {
        sent_at: at_ms(0),
        lease: LEASE,
        ttl: TTL,
    });
    let joins = |rig: &Rig| {
        let joins = rig.did.iter();
        joins
            .filter(|action| matches!(action, Action::Join { .. }))
            .count()
    };
    assert_eq!(joins(&rig), 1);
    rig.tell(Event::Joined(Outcome::Refused {
        current: None,
        revision: 10,
    }));
    assert_eq!(joins(&rig), 1);
    rig.pass(500);
    assert_eq!(joins(&rig), 2);
}

#[test]
fn what_this_machine_left_behind_is_waited_for_as_long_as_etcd_cannot_end_its_lease() {
    let mut rig = met_its_past(past());
    let left = |rig: &Rig| rig.steps().contains(&"leave");
    for _ in 0..60 {
        rig.pass(500);
        if let Some(round) = rig.take_round() {
            let error = "no answer".to_owned();
            rig.tell(Event::RoundFailed { round, error });
        }
    }
    assert!(!left(&rig));
    rig.pass_confirming(10_000);
    // A new leader.
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, TTL, TERM + 1, true);
    rig.pass_confirming(10_000);
    assert!(!left(&rig));
    rig.pass_confirming(2_000);
    assert!(left(&rig), "it is there, and so is etcd");
}

#[test]
fn who_slept_does_not_hold_what_it_knew_before_against_its_past() {
    let mut rig = met_its_past(past());
    rig.pass(60_000);
    assert!(!rig.steps().contains(&"leave"));
}

#[test]
fn who_waits_for_its_turn_waits_on_while_others_take_what_is_vacant() {
    let other: IpAddr = [10, 0, 0, 101].into();
    let mut rig = Rig::joined_with(|mut settings| {
        settings.vips.insert(other, vip_settings());
        settings
    });
    rig.tell(Event::Fitness(other, Fitness::Fit(MAC)));
    rig.answer_join();
    rig.did.clear();
    let put = |vip, revision| Change::OwnerPut(vip, owned_by("n2", OTHERS, revision));
    let gone = |vip, revision| Change::OwnerGone { vip, revision };
    for (revision, node) in [(15, "n3"), (16, "n4")] {
        let mut member = member(node, LeaseId(0x99), revision);
        member.record.vips.insert(other);
        member.record.priorities = BTreeMap::from([(vip(), 200), (other, 200)]);
        rig.watch(Change::MemberPut(node.to_owned(), member));
    }
    rig.tell(Event::Watched(vec![put(vip(), 20), put(other, 21)]));
    rig.tell(Event::Watched(vec![gone(vip(), 30), gone(other, 30)]));
    // Third in the queue for one of two.
    let half = 32;
    rig.pass(half);
    rig.watch(put(other, 31));
    rig.pass(half + 1);
    assert_eq!(rig.claims(), 0, "{:?}", rig.steps());
    rig.pass(half);
    assert_eq!(rig.claims(), 1, "{:?}", rig.steps());
}

#[test]
fn what_leaves_at_once_is_spread_over_the_others() {
    let vips: Vec<IpAddr> = (100..112).map(|host| [10, 0, 0, host].into()).collect();
    let many = |settings| Settings {
        vips: vips.iter().map(|vip| (*vip, vip_settings())).collect(),
        ..settings
    };
    let mut rig = Rig::joined_with(many);
    for vip in &vips {
        rig.tell(Event::Fitness(*vip, Fitness::Fit(MAC)));
    }
    rig.pass_confirming(3500);
    rig.revision += 1;
    for vip in &vips {
        let revision = rig.revision;
        rig.tell(Event::Claimed(*vip, Outcome::Committed { revision }));
    }
    for (name, lease) in [("n2", OTHERS), ("n3", LeaseId(0x99))] {
        rig.revision += 1;
        let mut joined = member(name, lease, rig.revision);
        joined.record.vips = vips.iter().copied().collect();
        rig.watch(Change::MemberPut(name.to_owned(), joined));
    }
    rig.revision += 1;
    rig.watch(Change::Drained {
        node: NODE.to_owned(),
        record: DrainRecord::default(),
        revision: rig.revision,
    });
    let heirs = vips.iter().filter_map(|vip| {
        let unit = rig.election.units.of(*vip)?;
        rig.election.handovers.heir(unit)
    });
    let heirs: Vec<&str> = heirs.collect();
    let of = |name: &str| heirs.iter().filter(|heir| **heir == name).count();
    assert_eq!((of("n2"), of("n3")), (6, 6), "{heirs:?}");
}
