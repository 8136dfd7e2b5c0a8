//! The table of `cases`, on the host.

use vip_common::{
    cases::{Case, Expect, GUARDED_MAC, Hook, Host, expected_answer, expected_probe, table},
    frame::is_group,
    reader::{Reader as _, Writer as _},
    reply,
    verdict::{self, Verdict},
};

fn judge(case: &Case) -> Verdict {
    let around = Host::of(case);
    match case.hook {
        Hook::Ingress => verdict::ingress(case.frame.as_slice(), &around),
        Hook::Guard => {
            // As the kernel does, from the MAC of the interface.
            let to = case.frame.first_chunk().copied().expect("it has a header");
            let for_us = to == GUARDED_MAC || is_group(to);
            verdict::guard(case.frame.as_slice(), for_us, &around)
        }
        Hook::Egress | Hook::Forward => verdict::egress(case.frame.as_slice(), &around),
    }
}

#[test]
fn every_frame_gets_its_verdict() {
    for case in table() {
        let verdict = judge(&case);
        assert!(
            case.expect.is_met_by(verdict),
            "{}: {verdict:?} for {case:?}",
            case.name
        );
    }
}

#[test]
fn every_answer_is_the_request_turned_round() {
    let mut answered = 0;
    for case in table()
        .into_iter()
        .filter(|case| case.expect == Expect::Answered)
    {
        let Verdict::Answer {
            question,
            mac,
            is_router,
            ..
        } = judge(&case)
        else {
            panic!("{} is not answered", case.name);
        };
        let mut frame = case.frame.clone();
        if let Some(length) = reply::answer_len(question) {
            frame.resize(length, 0);
        }
        reply::answer(frame.as_mut_slice(), question, mac, is_router)
            .expect("a parsed frame is whole");
        assert_eq!(frame, expected_answer(&case), "{}", case.name);
        answered += 1;
    }
    assert!(answered >= 25, "the table has lost its answers");
}

#[test]
fn a_question_by_another_way_goes_out_as_a_probe() {
    let mut asked = 0;
    for case in table()
        .into_iter()
        .filter(|case| case.expect == Expect::Anonymised)
    {
        let Verdict::Anonymise { layout, .. } = judge(&case) else {
            panic!("{} is not anonymised", case.name);
        };
        let mut frame = case.frame.clone();
        reply::anonymise_arp(frame.as_mut_slice(), layout).expect("a parsed frame is whole");
        assert_eq!(frame, expected_probe(&case.frame), "{}", case.name);
        asked += 1;
    }
    assert!(asked >= 2, "the table has lost its questions");
}

#[test]
fn a_frame_for_another_machine_passes_a_guard() {
    for case in table().into_iter().filter(|case| case.hook == Hook::Guard) {
        let around = Host::of(&case);
        let verdict = verdict::guard(case.frame.as_slice(), false, &around);
        assert_eq!(verdict, Verdict::NotOurs, "{}", case.name);
    }
}

#[test]
fn nothing_is_read_or_written_past_the_end() {
    let mut frame = [0_u8; 8];
    assert_eq!(frame.read::<4>(4), Some([0; 4]));
    assert_eq!(frame.read::<4>(5), None);
    assert_eq!(frame.read::<1>(usize::MAX), None);
    assert_eq!(frame.as_mut_slice().write(5, [1; 4]), None);
    assert_eq!(frame, [0; 8], "a write that does not fit changes nothing");
}
