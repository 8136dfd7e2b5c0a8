//! Strangers, and the question before a claim.

use super::*;

const STRANGER: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

fn probing(settings: Settings) -> Settings {
    let probed = VipSettings {
        probes: true,
        ..vip_settings()
    };
    Settings {
        vips: BTreeMap::from([(vip(), probed)]),
        ..settings
    }
}

fn yielding(settings: Settings) -> Settings {
    Settings {
        yields: true,
        ..probing(settings)
    }
}

impl Rig {
    fn owner_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let mut rig = Self::joined_with(change);
        rig.pass_finely(3000);
        rig.answer_claim();
        assert_eq!(rig.role(), Role::Owner);
        rig.did.clear();
        rig
    }

    /// As the driver's clock does: called when it asked to be.
    fn pass_finely(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            let wake = self.election.next_timeout();
            let wake = wake.map_or(until, |at| {
                let since = at.saturating_since(at_ms(0)).as_nanos();
                u64::try_from(since.div_ceil(1_000_000)).expect("not so late")
            });
            self.pass(wake.clamp(self.now_ms + 1, until) - self.now_ms);
            while let Some(round) = self.take_round() {
                self.answer(round, TTL, TERM, true);
            }
        }
    }

    fn hear(&mut self, mac: Mac) {
        self.tell(Event::Conflict { vip: vip(), mac });
    }

    fn count(&self, step: &str) -> usize {
        self.steps().into_iter().filter(|one| *one == step).count()
    }

    fn responses(&self) -> Vec<Response> {
        let response = |action: &Action| match action {
            Action::Report(Report::Conflict { response, mac, .. }) => {
                assert_eq!(*mac, STRANGER);
                Some(*response)
            }
            _ => None,
        };
        self.did.iter().filter_map(response).collect()
    }

    /// The other member, whose key we watch go.
    fn lose_the_other_owner(&mut self) {
        self.revision += 2;
        let (put, gone) = (self.revision - 1, self.revision);
        self.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, put)));
        self.watch(Change::OwnerGone {
            vip: vip(),
            revision: gone,
        });
    }

    fn answer_release(&mut self) {
        self.revision += 1;
        let revision = self.revision;
        self.tell(Event::Released(vip(), Outcome::Committed { revision }));
    }
}

#[test]
fn three_probes_go_before_a_claim_of_what_was_found_and_it_takes_no_longer() {
    let mut rig = Rig::joined_with(probing);
    rig.pass_finely(2990);
    assert_eq!(rig.steps(), ["probe", "probe", "probe"]);
    rig.pass_finely(20);
    assert_eq!(rig.claims(), 1);
    rig.answer_claim();
    rig.pass_finely(5000);
    assert_eq!(rig.count("probe"), 3, "an owner does not ask");
}

#[test]
fn who_turns_out_to_be_first_asks_in_time_to_claim_first() {
    let first = |settings| {
        let mut settings = probing(settings);
        for vip in settings.vips.values_mut() {
            vip.priority = 200;
        }
        settings
    };
    let mut rig = Rig::start_with(Inheritance::default(), first);
    // There is another, who goes first for as long as we are no member.
    rig.tell(Event::Read(rig.snapshot(&[member("n2", OTHERS, 5)], &[])));
    rig.pass(30);
    rig.tell(Event::Granted {
        sent_at: at_ms(rig.now_ms),
        lease: LEASE,
        ttl: TTL,
    });
    rig.revision += 1;
    rig.tell(Event::Joined(Outcome::Committed {
        revision: rig.revision,
    }));
    rig.pass_finely(2950);
    assert_eq!((rig.claims(), rig.count("probe")), (0, 3));
    rig.pass_finely(40);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn the_probes_are_spread_and_followed_by_silence() {
    let mut rig = Rig::joined_with(probing);
    let mut sent_ms = Vec::new();
    while rig.claims() == 0 {
        let before = rig.count("probe");
        rig.pass_finely(1);
        if rig.count("probe") > before {
            sent_ms.push(rig.now_ms);
        }
    }
    assert_eq!(sent_ms.len(), 3);
    let gaps = [sent_ms[1] - sent_ms[0], sent_ms[2] - sent_ms[1]];
    assert!(
        gaps.iter().all(|gap| (700..=1010).contains(gap)),
        "{gaps:?}"
    );
    assert!(
        rig.now_ms - sent_ms[2] >= 700,
        "{sent_ms:?}, {}",
        rig.now_ms
    );
}

#[test]
fn a_vacancy_that_was_watched_is_claimed_without_a_question() {
    let mut rig = Rig::joined_with(probing);
    rig.did.clear();
    rig.lose_the_other_owner();
    assert_eq!((rig.claims(), rig.count("probe")), (1, 0));
}

#[test]
fn who_does_not_probe_claims_without_a_question() {
    let mut rig = Rig::joined();
    rig.hear(STRANGER);
    rig.pass_finely(3000);
    assert_eq!((rig.claims(), rig.count("probe")), (1, 0));
}

#[test]
fn what_a_stranger_answers_for_is_not_claimed_until_it_is_silent() {
    let mut rig = Rig::joined_with(probing);
    for _ in 0..40 {
        rig.pass_finely(250);
        if rig.did.contains(&Action::Probe(vip())) {
            rig.did.clear();
            rig.hear(STRANGER);
            assert_eq!(rig.responses(), [Response::NotClaimed]);
        }
        assert_eq!(rig.claims(), 0);
    }
    let heard_ms = rig.now_ms;
    rig.hear(STRANGER);
    rig.did.clear();
    rig.pass_finely(9990);
    assert_eq!(rig.steps(), ["probe"; 3], "asked anew, and not claimed");
    rig.pass_finely(20);
    assert_eq!(rig.claims(), 1, "{} ms later", rig.now_ms - heard_ms);
}

#[test]
fn an_answer_is_heard_although_the_process_slept_over_it() {
    let mut rig = Rig::joined_with(probing);
    rig.pass_finely(2500);
    rig.now_ms += 600;
    // Whatever comes first at waking, only a tick says that all was heard.
    rig.tell(Event::Fitness(vip(), Fitness::Fit(MAC)));
    assert_eq!(rig.claims(), 0);
    rig.hear(STRANGER);
    rig.pass_finely(1000);
    assert_eq!(rig.claims(), 0);
}

#[test]
fn probes_that_were_sent_while_nobody_could_tell_of_answers_do_not_count() {
    let mut rig = Rig::joined_with(probing);
    rig.pass_finely(2000);
    // The deadline passes: answers go to the stack now.
    rig.pass(2600);
    assert_eq!(rig.claims(), 0);
    rig.did
        .retain(|action| matches!(action, Action::Renew { .. }));
    while let Some(round) = rig.take_round() {
        rig.answer(round, TTL, TERM, true);
    }
    rig.pass_finely(1900);
    assert_eq!((rig.claims(), rig.count("probe")), (0, 3));
    rig.pass_finely(150);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn a_member_is_no_stranger() {
    let mut rig = Rig::owner_with(yielding);
    rig.watch(Change::MemberPut("n2".to_owned(), member("n2", OTHERS, 20)));
    rig.hear(OTHERS_MAC);
    assert_eq!(rig.steps(), [""; 0]);
    assert_eq!(rig.role(), Role::Owner);
}

#[test]
fn who_turns_out_to_be_a_member_was_no_stranger() {
    let mut rig = Rig::joined_with(yielding);
    rig.tell(Event::Conflict {
        vip: vip(),
        mac: OTHERS_MAC,
    });
    rig.watch(Change::MemberPut("n2".to_owned(), member("n2", OTHERS, 12)));
    rig.revision = 12;
    rig.did.clear();
    rig.lose_the_other_owner();
    rig.pass_finely(30);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn the_owner_defends_at_once_and_then_once_in_ten_seconds() {
    let mut rig = Rig::owner_with(probing);
    rig.hear(STRANGER);
    assert_eq!(rig.steps(), ["announce"]);
    for _ in 0..99 {
        rig.pass_finely(100);
        rig.hear(STRANGER);
    }
    assert_eq!(rig.steps(), ["announce"], "within 10 s of the first");
    rig.pass_finely(100);
    assert_eq!(rig.steps(), ["announce"; 2], "what it owes");
    rig.pass_finely(60_000);
    assert_eq!(rig.steps(), ["announce"; 2], "it was not heard since");
    rig.hear(STRANGER);
    assert_eq!(rig.steps(), ["announce"; 3]);
    let responses = rig.responses();
    assert_eq!(responses[..2], [Response::Defended, Response::DefendedSoon]);
    assert_eq!(responses[100..], [Response::Defended]);
    assert_eq!(rig.role(), Role::Owner);
}

#[test]
fn a_suspended_or_stopping_owner_defends_nothing() {
    let mut rig = Rig::owner_with(probing);
    rig.pass(2500);
    assert_eq!(rig.role(), Role::Suspended);
    rig.hear(STRANGER);
    assert_eq!(rig.responses(), [Response::Noted]);
    assert_eq!(rig.steps(), [""; 0]);

    let mut rig = Rig::owner_with(probing);
    rig.tell(Event::Stop(Stop::Release));
    rig.did.clear();
    rig.hear(STRANGER);
    assert_eq!(rig.count("announce"), 0);
}

#[test]
fn a_follower_leaves_it_to_the_owner() {
    for change in [probing, yielding] {
        let mut rig = Rig::joined_with(change);
        rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
        rig.did.clear();
        rig.hear(STRANGER);
        assert_eq!(rig.responses(), [Response::Noted]);
        assert_eq!(rig.steps(), [""; 0]);
    }
}

#[test]
fn an_owner_that_yields_gives_up_in_the_usual_order() {
    let mut rig = Rig::owner_with(yielding);
    rig.hear(STRANGER);
    assert_eq!(rig.steps(), ["close", "remove address", "release"]);
    assert_eq!(rig.responses(), [Response::Yielded]);
}

#[test]
fn who_yielded_claims_again_after_ten_seconds_of_silence_and_a_question_and_goes_last() {
    let mut rig = Rig::owner_with(yielding);
    rig.hear(STRANGER);
    rig.answer_release();
    rig.did.clear();
    rig.pass_finely(4000);
    rig.hear(STRANGER);
    rig.pass_finely(10_000);
    assert_eq!(rig.claims(), 0, "others go first");
    rig.pass_finely(3000);
    assert_eq!((rig.claims(), rig.count("probe")), (1, 3));
}

#[test]
fn a_follower_that_yields_does_not_claim_what_a_stranger_took() {
    let mut rig = Rig::joined_with(yielding);
    rig.hear(STRANGER);
    rig.pass_finely(5000);
    rig.did.clear();
    rig.lose_the_other_owner();
    rig.pass_finely(4990);
    assert_eq!((rig.claims(), rig.count("probe")), (0, 3));
    rig.pass_finely(40);
    assert_eq!(rig.claims(), 1);
}

#[test]
fn a_stranger_that_has_long_been_silent_delays_nobody() {
    let mut rig = Rig::joined_with(yielding);
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
    rig.revision = 12;
    rig.hear(STRANGER);
    rig.pass_finely(10_000);
    rig.did.clear();
    rig.lose_the_other_owner();
    assert_eq!((rig.claims(), rig.count("probe")), (1, 0));
}

#[test]
fn a_stranger_that_is_heard_on_the_way_up_is_yielded_to() {
    let mut rig = Rig::joined_with(yielding);
    rig.lose_the_other_owner();
    assert_eq!(rig.claims(), 1);
    rig.hear(STRANGER);
    rig.answer_claim();
    assert!(!rig.steps().contains(&"open"), "{:?}", rig.steps());
    assert!(rig.steps().contains(&"release"), "{:?}", rig.steps());
}

#[test]
fn who_defends_takes_up_a_watched_vacancy_whatever_strangers_say() {
    let mut rig = Rig::joined_with(probing);
    rig.watch(Change::OwnerPut(vip(), owned_by("n2", OTHERS, 12)));
    rig.revision = 12;
    rig.hear(STRANGER);
    rig.did.clear();
    rig.lose_the_other_owner();
    assert_eq!(rig.claims(), 1);
}
