//! From one owner to the next: every path of it, on both sides.

use super::*;

const THIRD: LeaseId = LeaseId(0x99);

fn second() -> IpAddr {
    IpAddr::from([10, 0, 0, 101])
}

fn candidate(node: &str, lease: LeaseId, mod_revision: i64) -> Keyed<MemberRecord> {
    let mut one = member(node, lease, mod_revision);
    one.record.vips.insert(second());
    one
}

impl Rig {
    /// The owner of all its shared IPs, with n2 beside it.
    fn owner_beside_n2(change: impl FnOnce(Settings) -> Settings) -> Self {
        let mut rig = Self::joined_with(change);
        let vips: Vec<IpAddr> = rig.election.vips.keys().copied().collect();
        for ip in &vips {
            rig.tell(Event::Fitness(*ip, Fitness::Fit(MAC)));
        }
        rig.pass_seeing(3000);
        rig.revision += 1;
        let revision = rig.revision;
        for ip in vips {
            rig.tell(Event::Claimed(ip, Outcome::Committed { revision }));
        }
        rig.see_n2(|_| {});
        assert_eq!(rig.role(), Role::Owner);
        rig.did.clear();
        rig
    }

    fn grouped(settings: Settings) -> Settings {
        let one = VipSettings {
            group: Some("web".to_owned()),
            ..vip_settings()
        };
        let vips = BTreeMap::from([(vip(), one.clone()), (second(), one)]);
        Settings { vips, ..settings }
    }

    fn see_n2(&mut self, change: impl FnOnce(&mut MemberRecord)) {
        self.revision += 1;
        let mut n2 = candidate("n2", OTHERS, self.revision);
        change(&mut n2.record);
        self.watch(Change::MemberPut("n2".to_owned(), n2));
    }

    /// n2 says that it is ready for all that is ours, on these revisions less `behind`.
    fn n2_is_ready(&mut self, behind: i64) {
        let vips = self.election.vips.values();
        let words = vips.filter(|one| one.is_on(Some(LEASE))).map(|one| {
            let epoch = one.epoch() - behind;
            (
                one.ip,
                Readiness {
                    mac: OTHERS_MAC,
                    epoch,
                },
            )
        });
        let words = words.collect();
        self.see_n2(|record| record.ready = words);
    }

    fn see_drained(&mut self, node: &str, force: bool) {
        self.revision += 1;
        self.watch(Change::Drained {
            node: node.to_owned(),
            record: DrainRecord {
                force,
                since: String::new(),
            },
            revision: self.revision,
        });
    }

    fn see_owner(&mut self, lease: LeaseId, successor: Option<&str>) {
        self.revision += 1;
        let node = if lease == LEASE { NODE } else { "n2" };
        let mut owner = owned_by(node, lease, self.revision);
        owner.record.successor = successor.map(str::to_owned);
        self.watch(Change::OwnerPut(vip(), owner));
    }

    fn ask_for_n2(&mut self) {
        let to = "n2".to_owned();
        self.tell(Event::Ask { vip: vip(), to });
    }

    /// Answers what was sent about owner keys, but for hand-overs.
    fn commit_reasserts(&mut self) {
        let sent: Vec<IpAddr> = self
            .did
            .iter()
            .filter_map(|action| match action {
                Action::Reassert { vip, .. } => Some(*vip),
                _ => None,
            })
            .filter(|ip| self.election.vips[ip].pending == Some(Pending::Reassert))
            .collect();
        for ip in sent {
            self.revision += 1;
            let revision = self.revision;
            self.tell(Event::Reasserted(ip, Outcome::Committed { revision }));
        }
    }

    /// Handed over up to where etcd is to answer.
    fn handing_over() -> Self {
        let mut rig = Self::owner_beside_n2(|settings| settings);
        rig.ask_for_n2();
        rig.commit_reasserts();
        rig.n2_is_ready(0);
        assert_eq!(rig.steps(), ["reassert", "open", "close", "transfer"]);
        rig.did.clear();
        rig
    }

    fn successors(&self) -> Vec<String> {
        let named = self.did.iter().filter_map(|action| match action {
            Action::Report(Report::HandOver {
                to,
                progress: Progress::Begun,
                ..
            }) => Some(to.clone()),
            _ => None,
        });
        named.collect()
    }

    /// Lets time pass, and confirms the lease by all that is known.
    fn pass_seeing(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.pass(250);
            let Some(round) = self.take_round() else {
                continue;
            };
            let mut members = self.election.view.members.clone();
            let node = NODE.to_owned();
            members
                .entry(node)
                .or_insert_with(|| member(NODE, LEASE, 11));
            let vips = self.election.vips.iter();
            let owners = vips.filter_map(|(ip, one)| Some((*ip, one.held()?.clone())));
            let snapshot = Snapshot {
                members,
                owners: owners.collect(),
                ..self.snapshot(&[], &[])
            };
            self.tell(Event::Renewed {
                round,
                ttl: TTL,
                raft_term: TERM,
            });
            self.tell(Event::Confirmed { round, snapshot });
        }
    }

    fn joins(&self) -> Vec<MemberRecord> {
        let joins = self.did.iter().filter_map(|action| match action {
            Action::Join { record, .. } => Some(record.clone()),
            _ => None,
        });
        joins.collect()
    }
}

#[test]
fn the_gate_is_shut_when_the_successor_is_ready_and_the_key_goes_after() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.ask_for_n2();
    rig.commit_reasserts();
    rig.pass_seeing(1000);
    assert_eq!(rig.steps(), ["reassert", "open"], "it serves until then");
    rig.n2_is_ready(0);
    assert_eq!(rig.steps()[2..], ["close", "transfer"]);
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Transferred(vip(), Outcome::Committed { revision }));
    assert_eq!(rig.steps()[4..], ["remove address", "close"]);
    assert_eq!(rig.role(), Role::Follower);
}

#[test]
fn a_word_that_was_given_to_an_earlier_naming_is_void() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.ask_for_n2();
    rig.n2_is_ready(0);
    rig.commit_reasserts();
    rig.n2_is_ready(1);
    assert!(!rig.steps().contains(&"close"));
}

#[test]
fn a_successor_that_is_not_ready_in_time_is_named_no_more_and_left_alone_for_a_while() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.see_drained(NODE, false);
    rig.commit_reasserts();
    rig.did.clear();
    rig.pass_seeing(3000);
    assert_eq!(rig.steps(), ["reassert"], "without a successor");
    rig.commit_reasserts();
    rig.did.clear();
    rig.pass_seeing(5500);
    assert!(rig.successors().is_empty());
    rig.pass_seeing(1000);
    assert_eq!(rig.successors(), ["n2"]);
    assert!(!rig.steps().contains(&"close"));
}

#[test]
fn a_successor_that_goes_is_named_no_more_and_the_gate_stays_open() {
    type Loss = fn(&mut Rig);
    let losses: [Loss; 3] = [
        |rig| {
            rig.revision += 1;
            let (node, revision) = ("n2".to_owned(), rig.revision);
            rig.watch(Change::MemberGone { node, revision });
        },
        |rig| rig.see_n2(|record| record.vips.clear()),
        |rig| rig.see_drained("n2", false),
    ];
    for lose in losses {
        let mut rig = Rig::owner_beside_n2(|settings| settings);
        rig.ask_for_n2();
        rig.commit_reasserts();
        rig.did.clear();
        lose(&mut rig);
        assert_eq!(rig.steps(), ["reassert"]);
        assert_eq!(rig.role(), Role::Owner);
    }
}

#[test]
fn what_etcd_refuses_opens_again_on_a_new_revision() {
    for outcome in [
        |rig: &Rig| Outcome::Refused {
            current: rig.election.vips[&vip()].held().cloned(),
            revision: rig.revision,
        },
        |_: &Rig| Outcome::LeaseGone,
    ] {
        let mut rig = Rig::handing_over();
        let outcome = outcome(&rig);
        rig.tell(Event::Transferred(vip(), outcome));
        assert_eq!(rig.steps(), ["reassert"]);
        rig.commit_reasserts();
        assert_eq!(rig.steps()[1..3], ["open", "announce"]);
    }
}

#[test]
fn a_hand_over_that_was_not_answered_is_looked_up_behind_the_shut_gate() {
    for (lease, then) in [(LEASE, "reassert"), (OTHERS, "remove address")] {
        let mut rig = Rig::handing_over();
        let held = rig.election.vips[&vip()].held().cloned().expect("ours");
        let lost = Outcome::Unknown("no answer".to_owned());
        rig.tell(Event::Transferred(vip(), lost));
        assert!(rig.did.contains(&Action::Read));
        assert_eq!(rig.steps(), [""; 0], "the address stays");
        let owner = match lease {
            LEASE => held,
            _ => owned_by("n2", lease, rig.revision),
        };
        let members: Vec<_> = rig.election.view.members.values().cloned().collect();
        rig.tell(Event::Read(rig.snapshot(&members, &[owner])));
        assert_eq!(rig.steps().first(), Some(&then));
        assert!(!rig.steps().contains(&"open"));
    }
}

#[test]
fn the_rest_of_a_group_waits_for_all_of_its_gates() {
    let mut rig = Rig::owner_beside_n2(Rig::grouped);
    rig.ask_for_n2();
    rig.commit_reasserts();
    rig.n2_is_ready(0);
    let steps = rig.steps();
    assert_eq!(steps[steps.len() - 3..], ["close", "close", "transfer"]);
    let is_whole =
        |action: &Action| matches!(action, Action::Transfer { records, .. } if records.len() == 2);
    assert!(rig.did.iter().any(is_whole));
}

#[test]
fn a_group_is_claimed_as_one_and_not_while_a_part_is_anothers() {
    let mut rig = Rig::joined_with(Rig::grouped);
    rig.tell(Event::Fitness(second(), Fitness::Fit(MAC)));
    rig.see_owner(OTHERS, None);
    rig.pass_seeing(4000);
    assert_eq!(rig.claims(), 0);
    rig.revision += 1;
    let revision = rig.revision;
    rig.watch(Change::OwnerGone {
        vip: vip(),
        revision,
    });
    let claims: Vec<usize> = rig
        .did
        .iter()
        .filter_map(|action| match action {
            Action::Claim { records, .. } => Some(records.len()),
            _ => None,
        })
        .collect();
    assert_eq!(claims, [2]);
}

#[test]
fn a_group_meets_where_its_first_is() {
    let mut rig = Rig::owner_beside_n2(Rig::grouped);
    rig.see_owner(OTHERS, None);
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn a_group_whose_first_is_vacant_meets_where_the_next_is() {
    let third = IpAddr::from([10, 0, 0, 99]);
    let mut rig = Rig::owner_beside_n2(|settings| {
        let mut settings = Rig::grouped(settings);
        let one = settings.vips[&vip()].clone();
        settings.vips.insert(third, one);
        settings
    });
    rig.see_n2(|record| {
        record.vips.insert(third);
    });
    rig.revision += 1;
    let revision = rig.revision;
    let gone = Change::OwnerGone {
        vip: third,
        revision,
    };
    let moved = Change::OwnerPut(vip(), owned_by("n2", OTHERS, revision));
    rig.tell(Event::Watched(vec![gone, moved]));
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn who_is_drained_hands_over_and_keeps_what_nobody_can_take() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.see_n2(|record| record.vips.clear());
    rig.see_drained(NODE, false);
    rig.pass_seeing(1000);
    assert_eq!(rig.steps(), [""; 0]);
    rig.see_n2(|_| {});
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn what_is_given_up_to_nobody_is_not_taken_up_again() {
    type Cause = fn(&mut Rig);
    let causes: [Cause; 2] = [
        |rig| rig.see_drained(NODE, true),
        |rig| {
            let why = "its check fails".to_owned();
            rig.tell(Event::Fitness(vip(), Fitness::Unhealthy(MAC, why)));
        },
    ];
    for cause in causes {
        let mut rig = Rig::owner_beside_n2(|settings| Settings {
            when_all_unfit: WhenAllUnfit::Release,
            ..settings
        });
        rig.see_n2(|record| record.vips.clear());
        cause(&mut rig);
        assert_eq!(rig.steps(), ["close", "remove address", "release"]);
        rig.revision += 1;
        let revision = rig.revision;
        rig.tell(Event::Released(vip(), Outcome::Committed { revision }));
        rig.pass_seeing(6000);
        assert_eq!(rig.claims(), 0);
    }
}

#[test]
fn an_unhealthy_owner_hands_over_and_keeps_what_nobody_can_take() {
    let why = || "its check fails".to_owned();
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.see_n2(|record| record.vips.clear());
    rig.tell(Event::Fitness(vip(), Fitness::Unhealthy(MAC, why())));
    rig.pass_seeing(1000);
    assert_eq!(rig.steps(), [""; 0]);
    rig.see_n2(|_| {});
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn an_interface_that_goes_down_does_not_count_against_the_successor_of_the_rest() {
    let mut rig = Rig::owner_beside_n2(Rig::grouped);
    rig.tell(Event::Fitness(vip(), unable()));
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Released(vip(), Outcome::Committed { revision }));
    rig.pass(1);
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn who_drains_counts_what_it_has_already_given_away() {
    let vips: Vec<IpAddr> = (100..106).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let settings = vips.iter().map(|ip| (*ip, vip_settings()));
    let settings: BTreeMap<_, _> = settings.collect();
    let mut rig = Rig::owner_beside_n2(|before| Settings {
        vips: settings,
        ..before
    });
    let all: BTreeSet<IpAddr> = vips.into_iter().collect();
    rig.see_n2(|record| record.vips.clone_from(&all));
    rig.revision += 1;
    let mut n3 = candidate("n3", THIRD, rig.revision);
    n3.record.vips = all;
    rig.watch(Change::MemberPut("n3".to_owned(), n3));
    // n3 has one more from the beginning.
    rig.revision += 1;
    let elsewhere = owned_by("n3", THIRD, rig.revision);
    rig.watch(Change::OwnerPut(IpAddr::from([10, 0, 9, 9]), elsewhere));
    rig.see_drained(NODE, false);
    let named = rig.successors();
    let of = |node: &str| named.iter().filter(|one| *one == node).count();
    assert_eq!(named.len(), 6);
    assert!(of("n2").abs_diff(of("n3") + 1) <= 1, "{named:?}");
}

#[test]
fn a_higher_priority_is_given_way_to_once_it_has_lasted() {
    let preempts = |settings| Settings {
        preempt: Some(Duration::from_secs(2)),
        ..settings
    };
    let prefer = |record: &mut MemberRecord| {
        record.priorities.insert(vip(), 200);
    };
    let mut rig = Rig::owner_beside_n2(preempts);
    rig.see_n2(prefer);
    rig.pass_seeing(1750);
    // It was away for a moment: it begins anew.
    rig.see_n2(|record| record.vips.clear());
    rig.see_n2(prefer);
    rig.pass_seeing(1750);
    assert!(rig.successors().is_empty());
    rig.pass_seeing(500);
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn an_equal_priority_is_not_given_way_to() {
    let mut rig = Rig::owner_beside_n2(|settings| Settings {
        preempt: Some(Duration::ZERO),
        ..settings
    });
    rig.pass_seeing(3000);
    assert!(rig.successors().is_empty());
}

#[test]
fn who_holds_more_hands_over_until_it_is_even_and_no_further() {
    let two = BTreeMap::from([(vip(), vip_settings()), (second(), vip_settings())]);
    let mut rig = Rig::owner_beside_n2(|settings| Settings {
        vips: two,
        rebalance: Some(Duration::from_secs(1)),
        ..settings
    });
    rig.pass_seeing(2000);
    assert_eq!(rig.successors(), ["n2"]);
}

#[test]
fn who_stops_hands_over_first_and_leaves_then() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.tell(Event::Stop(Stop::Release));
    rig.commit_reasserts();
    rig.n2_is_ready(0);
    assert_eq!(rig.steps(), ["reassert", "open", "close", "transfer"]);
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Transferred(vip(), Outcome::Committed { revision }));
    rig.answer_join();
    assert_eq!(rig.steps()[4..], ["remove address", "leave"]);
}

#[test]
fn who_stops_alone_gives_up() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.see_n2(|record| record.vips.clear());
    rig.tell(Event::Stop(Stop::Release));
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
}

#[test]
fn what_is_configured_no_more_is_handed_over_and_forgotten() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.tell(Event::Configure(BTreeMap::new()));
    rig.commit_reasserts();
    rig.n2_is_ready(0);
    rig.revision += 1;
    let revision = rig.revision;
    rig.tell(Event::Transferred(vip(), Outcome::Committed { revision }));
    assert_eq!(rig.steps().last(), Some(&"forget"));
    // It comes back to who has forgotten it.
    rig.see_owner(LEASE, None);
    let is_release = |action: &Action| matches!(action, Action::Release { .. });
    assert!(rig.did.iter().any(is_release));
}

#[test]
fn what_is_configured_anew_is_read_before_it_is_claimed() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    let two = BTreeMap::from([(vip(), vip_settings()), (second(), vip_settings())]);
    rig.tell(Event::Configure(two));
    assert!(rig.did.contains(&Action::Read));
    assert_eq!(rig.role(), Role::Owner);
    assert_eq!(rig.claims(), 0);
}

#[test]
fn the_successor_opens_when_the_key_is_on_its_lease_and_not_before() {
    let mut rig = Rig::joined();
    rig.see_owner(OTHERS, Some(NODE));
    assert_eq!(rig.steps(), ["add address", "close"]);
    let epoch = rig.revision;
    let word = Readiness { mac: MAC, epoch };
    let said = rig.joins().pop().expect("it says so");
    assert_eq!(said.ready, BTreeMap::from([(vip(), word)]));
    rig.pass_seeing(500);
    assert_eq!(rig.steps().len(), 2);
    rig.see_owner(LEASE, None);
    assert_eq!(rig.steps()[2..], ["open", "announce"]);
}

#[test]
fn a_successor_that_is_not_to_have_it_takes_its_address_away_again() {
    type Loss = fn(&mut Rig);
    let losses: [Loss; 3] = [
        |rig| rig.see_owner(OTHERS, None),
        |rig| rig.see_drained(NODE, false),
        |rig| {
            let why = "its check fails".to_owned();
            rig.tell(Event::Fitness(vip(), Fitness::Unhealthy(MAC, why)));
        },
    ];
    for lose in losses {
        let mut rig = Rig::joined();
        rig.see_owner(OTHERS, Some(NODE));
        rig.answer_join();
        rig.did.clear();
        lose(&mut rig);
        assert!(rig.steps().contains(&"remove address"), "{:?}", rig.did);
        let last = rig.joins().pop().expect("its word is taken back");
        assert!(last.ready.is_empty());
    }
}

#[test]
fn who_leaves_an_address_to_a_stranger_is_not_ready_for_it() {
    let mut rig = Rig::joined_with(|settings| Settings {
        yields: true,
        ..settings
    });
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    rig.see_owner(OTHERS, None);
    rig.tell(Event::Conflict { vip: vip(), mac });
    rig.see_owner(OTHERS, Some(NODE));
    assert!(!rig.steps().contains(&"add address"));
}

#[test]
fn a_successor_that_hears_a_stranger_once_it_is_vacant_goes_back_to_asking() {
    let mut rig = Rig::joined_with(|mut settings| {
        settings.yields = true;
        for one in settings.vips.values_mut() {
            one.probes = true;
        }
        settings
    });
    rig.see_owner(OTHERS, Some(NODE));
    rig.see_n2(|_| {});
    rig.revision += 1;
    let revision = rig.revision;
    // n2 goes first.
    rig.election
        .vips
        .get_mut(&vip())
        .expect("there")
        .waits_until = at_ms(rig.now_ms + 10);
    rig.watch(Change::OwnerGone {
        vip: vip(),
        revision,
    });
    rig.did.clear();
    rig.pass(1);
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    rig.tell(Event::Conflict { vip: vip(), mac });
    assert_eq!(rig.steps(), ["remove address"]);
    rig.pass_seeing(16_000);
    assert_eq!(rig.claims(), 1);
}

fn unfenced(mut settings: Settings) -> Settings {
    for one in settings.vips.values_mut() {
        one.fenced = false;
    }
    settings
}

#[test]
fn without_a_gate_the_address_goes_before_the_key_and_comes_after_it() {
    let mut rig = Rig::owner_beside_n2(unfenced);
    rig.ask_for_n2();
    rig.commit_reasserts();
    rig.n2_is_ready(0);
    let steps = rig.steps();
    assert_eq!(steps[2..], ["close", "remove address", "transfer"]);

    let mut rig = Rig::joined_with(unfenced);
    rig.see_owner(OTHERS, Some(NODE));
    assert_eq!(rig.steps(), ["close"]);
    assert!(!rig.joins().pop().expect("its word").ready.is_empty());
    rig.see_owner(LEASE, None);
    assert_eq!(rig.steps()[1..], ["add address", "open", "announce"]);
}

#[test]
fn without_a_gate_no_address_is_left_there_for_a_vacancy() {
    let mut rig = Rig::joined_with(unfenced);
    rig.pass_seeing(3000);
    rig.revision += 1;
    let revision = rig.revision;
    let now = at_ms(rig.now_ms);
    // Straight to the election: the rig would answer that the address is there.
    let claimed = Event::Claimed(vip(), Outcome::Committed { revision });
    rig.election.handle(now, claimed);
    rig.revision += 1;
    let revision = rig.revision;
    let gone = Change::OwnerGone {
        vip: vip(),
        revision,
    };
    rig.election.handle(now, Event::Watched(vec![gone]));
    rig.did.clear();
    rig.tell(Event::AddressAdded(vip()));
    assert!(rig.steps().contains(&"remove address"), "{:?}", rig.did);
}

#[test]
fn an_ask_that_stands_in_etcd_by_a_lost_answer_is_taken_back_once_it_is_met() {
    let mut rig = Rig::joined();
    rig.see_n2(|_| {});
    rig.see_owner(THIRD, None);
    rig.did.clear();
    rig.ask_for_n2();
    let asked = rig.joins().pop().expect("it is written down");
    assert_eq!(asked.asks.len(), 1);
    rig.tell(Event::Joined(Outcome::Unknown("no answer".to_owned())));
    rig.see_owner(OTHERS, None);
    rig.pass_seeing(1000);
    rig.did.clear();
    // It was committed all the same.
    rig.revision += 1;
    let standing = Keyed {
        lease: LEASE,
        mod_revision: rig.revision,
        record: asked,
    };
    rig.watch(Change::MemberPut(NODE.to_owned(), standing));
    let last = rig.joins().pop().expect("written again");
    assert!(last.asks.is_empty());
}

#[test]
fn a_group_goes_as_a_whole_where_the_address_of_one_cannot_be_put_on() {
    let mut rig = Rig::owner_beside_n2(Rig::grouped);
    // Somebody deleted the key of the one; it is ours again, and its address is refused.
    rig.revision += 1;
    let revision = rig.revision;
    rig.watch(Change::OwnerGone {
        vip: second(),
        revision,
    });
    let around = |rig: &Rig| at_ms(rig.now_ms) + TTL;
    let until = around(&rig);
    let one = rig.election.vips.get_mut(&second());
    one.expect("it is configured").shunned_until = until;
    rig.did.clear();
    rig.pass(1);
    assert_eq!(rig.successors(), ["n2"]);
    assert_eq!(rig.claims(), 0, "{:?}", rig.steps());
}

#[test]
fn a_successor_that_is_ready_is_not_refused_for_what_the_owner_was_late_with() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.ask_for_n2();
    rig.commit_reasserts();
    // The owner's lease is not confirmed: it may hand over nothing meanwhile.
    rig.pass(2600);
    rig.n2_is_ready(0);
    rig.pass(1000);
    assert!(!rig.steps().contains(&"transfer"), "{:?}", rig.steps());
    assert!(
        !rig.election
            .handovers
            .is_refused(units::UnitId(vip()), "n2")
    );
}

#[test]
fn a_configuration_leaves_the_hand_overs_of_others_alone() {
    let mut rig = Rig::owner_beside_n2(|settings| settings);
    rig.ask_for_n2();
    rig.commit_reasserts();
    let mut vips = rig.election.settings.vips.clone();
    vips.insert(second(), vip_settings());
    rig.tell(Event::Configure(vips));
    let heir = rig.election.handovers.heir(units::UnitId(vip()));
    assert_eq!(heir, Some("n2"));
}

#[test]
fn what_the_watch_told_of_a_hand_over_outlasts_its_answer() {
    let mut rig = Rig::handing_over();
    rig.revision += 1;
    let revision = rig.revision;
    let mut owner = owned_by("n2", OTHERS, revision);
    owner.record.since = "2026-01-01T00:00:00Z".to_owned();
    rig.watch(Change::OwnerPut(vip(), owner));
    rig.tell(Event::Transferred(vip(), Outcome::Committed { revision }));
    let since = rig.election.vips[&vip()]
        .held()
        .map(|held| held.record.since.clone());
    assert_eq!(since.as_deref(), Some("2026-01-01T00:00:00Z"));
}

#[test]
fn what_nobody_takes_is_told_once() {
    let mut rig = Rig::owner();
    rig.see_drained(NODE, true);
    rig.pass(1);
    let told = rig.did.iter();
    let told = told.filter(|action| matches!(action, Action::Report(Report::GivenUp { .. })));
    assert_eq!(told.count(), 1);
}
