//! What is not known, no longer known, or known otherwise than it was.

use super::*;

#[test]
fn an_unanswered_claim_is_made_again_and_taken_for_ours_only_by_its_lease() {
    for (lease, role) in [(LEASE, Role::Owner), (OTHERS, Role::Follower)] {
        let mut rig = Rig::joined();
        rig.pass_confirming(3000);
        let lost = Outcome::Unknown("no answer".to_owned());
        rig.tell(Event::Claimed(vip(), lost));
        assert_eq!(rig.claims(), 1);
        rig.pass(100);
        assert_eq!(rig.claims(), 2);
        rig.tell(Event::Claimed(
            vip(),
            Outcome::Refused {
                current: Some(owned_by(NODE, lease, 30)),
                revision: 30,
            },
        ));
        assert_eq!(rig.role(), role);
    }
}

#[test]
fn a_give_up_that_was_not_answered_is_looked_up() {
    let mut rig = Rig::owner();
    rig.tell(Event::Fitness(vip(), unable()));
    let lost = Outcome::Unknown("no answer".to_owned());
    rig.tell(Event::Released(vip(), lost));
    assert!(rig.did.contains(&Action::Read));
    rig.tell(Event::Fitness(vip(), Fitness::Fit(MAC)));
    let revision = rig.revision;
    let members = [member(NODE, LEASE, 11)];
    rig.tell(Event::Read(
        rig.snapshot(&members, &[owned_by(NODE, LEASE, revision)]),
    ));
    let steps = rig.steps();
    assert_eq!(
        steps.last(),
        Some(&"reassert"),
        "never on the revision that it may yet delete"
    );
    assert!(!steps.contains(&"open"));
}

#[test]
fn what_came_to_be_in_doubt_while_it_was_read_is_read_again() {
    let mut rig = Rig::owner();
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.tell(Event::Fitness(vip(), unable()));
    rig.revision += 5;
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, TTL, TERM, true);
    let lost = Outcome::Unknown("no answer".to_owned());
    rig.tell(Event::Released(vip(), lost));
    rig.did.clear();
    rig.revision -= 5;
    let members = [member(NODE, LEASE, 11)];
    rig.tell(Event::Read(rig.snapshot(&members, &[])));
    rig.pass(500);
    assert!(rig.did.contains(&Action::Read));
}

#[test]
fn a_vacancy_that_was_not_watched_all_along_is_waited_out() {
    let mut rig = Rig::joined();
    rig.tell(Event::Fitness(vip(), unable()));
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
    rig.watch(Change::OwnerGone {
        vip: vip(),
        revision: 13,
    });
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 20;
    rig.tell(Event::Read(rig.snapshot(&[member(NODE, LEASE, 11)], &[])));
    rig.tell(Event::Fitness(vip(), Fitness::Fit(MAC)));
    assert_eq!(rig.claims(), 0, "somebody may have owned it meanwhile");
    rig.pass_confirming(3000);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn news_that_a_full_read_overtook_is_passed_over() {
    let mut rig = Rig::joined();
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 20;
    rig.tell(Event::Read(rig.snapshot(&[member(NODE, LEASE, 11)], &[])));
    rig.watch(Change::MemberPut(
        "gone".to_owned(),
        member("gone", OTHERS, 15),
    ));
    let members: Vec<&str> = rig
        .election
        .members()
        .map(|member| member.node.as_str())
        .collect();
    assert_eq!(members, [NODE]);
}

#[test]
fn a_watch_that_held_for_long_is_followed_by_a_read_at_once() {
    let mut rig = Rig::start(Inheritance::default());
    for _ in 0..5 {
        rig.tell(Event::ReadFailed("refused".to_owned()));
        rig.pass(2000);
    }
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    rig.did.clear();
    rig.pass(60_000);
    rig.tell(Event::WatchLost("closed".to_owned()));
    assert!(rig.did.contains(&Action::Read));
    rig.did.clear();
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    rig.tell(Event::WatchLost("closed".to_owned()));
    assert!(!rig.did.contains(&Action::Read), "but not in a spin");
}

#[test]
fn after_another_history_the_longest_ttl_of_the_old_one_is_waited_out() {
    let mut rig = Rig::joined();
    let mut slow = owned_by("n2", OTHERS, 50);
    slow.record.ttl_ms = 9000;
    rig.watch(Change::OwnerPut(vip(), slow));
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 20;
    rig.tell(Event::Read(rig.snapshot(&[member(NODE, LEASE, 11)], &[])));
    rig.answer_join();
    rig.did.clear();
    rig.pass_confirming(8750);
    assert_eq!(rig.claims(), 0);
    rig.pass_confirming(250);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn what_another_history_says_is_ours_is_neither_opened_nor_given_up_before_the_old_owner_is_past() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 50)));
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 60;
    let restored = [owned_by(NODE, LEASE, 12)];
    rig.tell(Event::Read(
        rig.snapshot(&[member(NODE, LEASE, 11)], &restored),
    ));
    let contradicted = Report::HistoryReset {
        known: 50,
        read: 60,
    };
    assert!(
        rig.did.contains(&Action::Report(contradicted)),
        "its key is older than it was"
    );
    rig.pass_confirming(2750);
    let steps = rig.steps();
    assert!(
        !steps.contains(&"open") && !steps.contains(&"release"),
        "{steps:?}"
    );
    rig.pass_confirming(250);
    assert_eq!(rig.steps().last(), Some(&"reassert"));
}

#[test]
fn a_confirming_read_from_another_history_is_remembered_until_the_full_one() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 50)));
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.revision = 20;
    rig.answer(round, TTL, TERM, true);
    assert!(rig.did.contains(&Action::Read));
    rig.revision = 70;
    rig.tell(Event::Read(rig.snapshot(&[member(NODE, LEASE, 11)], &[])));
    let reset = Report::HistoryReset {
        known: 50,
        read: 70,
    };
    assert!(rig.did.contains(&Action::Report(reset)));
}

#[test]
fn a_read_below_our_own_commit_is_from_another_history() {
    let mut rig = Rig::joined();
    rig.pass(500);
    let round = rig.take_round().expect("a round is due");
    rig.revision -= 1;
    rig.answer(round, TTL, TERM, true);
    assert!(rig.did.contains(&Action::Read));
}

#[test]
fn a_read_that_shows_other_contents_at_a_known_revision_is_from_another_history() {
    let contradicted = |read: Snapshot| {
        let mut rig = Rig::joined();
        rig.watch(Change::MemberPut(
            NODE.to_owned(),
            member(NODE, LEASE, rig.revision),
        ));
        rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
        rig.pass(500);
        let round = rig.take_round().expect("a round is due");
        rig.tell(Event::Confirmed {
            round,
            snapshot: read,
        });
        rig.did.contains(&Action::Read)
    };
    let mut rig = Rig::joined();
    let ours = member(NODE, LEASE, rig.revision);
    rig.revision = 12;
    let owner = owned_by("n2", OTHERS, 12);
    let known = rig.snapshot(std::slice::from_ref(&ours), &[owner]);
    assert!(!contradicted(known));
    let on_another_lease = owned_by("n2", LeaseId(77), 12);
    assert!(contradicted(
        rig.snapshot(std::slice::from_ref(&ours), &[on_another_lease])
    ));
    assert!(contradicted(rig.snapshot(&[ours], &[])));
    assert!(contradicted(
        rig.snapshot(&[], &[owned_by("n2", OTHERS, 12)])
    ));
}

#[test]
fn a_full_read_that_our_own_commit_overtook_is_of_the_same_history() {
    let mut rig = Rig::joined();
    rig.pass_confirming(3000);
    rig.tell(Event::WatchLost("closed".to_owned()));
    let overtaken = rig.snapshot(&[member(NODE, LEASE, 11)], &[]);
    rig.answer_claim();
    rig.did.clear();
    rig.tell(Event::Read(overtaken));
    assert_eq!(rig.role(), Role::Owner);
    assert!(rig.steps().is_empty(), "{:?}", rig.did);
}

#[test]
fn in_another_history_the_member_key_is_written_anew_whatever_its_revision_was() {
    let mut rig = Rig::joined();
    rig.revision = 20;
    rig.election.forget_member_key();
    rig.tell(Event::Tick);
    rig.answer_join();
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 15;
    rig.did.clear();
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    rig.answer_join();
    assert!(rig.election.is_joined());
}

#[test]
fn losing_the_watch_is_followed_by_a_full_read_and_a_new_watch() {
    let mut rig = Rig::owner();
    rig.tell(Event::WatchLost("compacted".to_owned()));
    assert!(rig.did.contains(&Action::Read));
    let members = [member(NODE, LEASE, 11)];
    rig.tell(Event::Read(
        rig.snapshot(&members, &[owned_by(NODE, LEASE, rig.revision)]),
    ));
    let from_revision = rig.revision + 1;
    assert!(rig.did.contains(&Action::Watch {
        from_revision,
        silence: 2 * TTL
    }));
    assert_eq!(rig.role(), Role::Owner);
    assert!(rig.steps().is_empty(), "nothing changes hands");
}

#[test]
fn a_store_restored_from_a_backup_is_read_as_a_new_one() {
    let mut rig = Rig::joined();
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 50)));
    rig.tell(Event::WatchLost("closed".to_owned()));
    rig.revision = 20;
    rig.tell(Event::Read(rig.snapshot(&[], &[])));
    let reset = Report::HistoryReset {
        known: 50,
        read: 20,
    };
    assert!(rig.did.contains(&Action::Report(reset)));
    assert_eq!(rig.role(), Role::Vacant);
    assert_eq!(rig.claims(), 0, "found vacant: waited out");
}

#[test]
fn an_owner_whose_lease_should_have_ended_waits_before_it_serves_again() {
    let mut rig = Rig::owner();
    rig.pass_confirming(500);
    rig.pass(10_000);
    let round = rig.take_round().expect("a round is due");
    rig.answer(round, TTL, TERM, true);
    assert_eq!(rig.steps(), ["close", "remove address"]);
    assert!(rig.did.contains(&Action::Read));
    let (ours, owner) = (
        rig.election.view.members[NODE].clone(),
        owned_by(NODE, LEASE, rig.revision),
    );
    rig.tell(Event::Read(rig.snapshot(&[ours], &[owner])));
    rig.answer_join();
    rig.did.clear();
    rig.pass_confirming(2750);
    assert_eq!(rig.steps(), Vec::<&str>::new());
    rig.pass_confirming(250);
    assert_eq!(rig.steps(), ["reassert"]);
}
