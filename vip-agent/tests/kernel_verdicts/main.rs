//! The verdicts in the kernel, through `BPF_PROG_TEST_RUN`: what becomes of a frame, the frame itself and
//! the counters are what the host says, for the table of `vip_common::cases`, where both are what
//! the table says, and for frames that chance makes.

mod kernel;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use kernel::{Kernel, expected, may_use_bpf, programs_for};
use proptest::{prelude::*, test_runner::TestRunner};
use vip_common::{
    abi::names,
    cases::{self, Expect, Hook, any_frame, any_stage},
};

/// As long as jumbo frames are; what is longer than a page lies in fragments.
const LONGEST: usize = 9_000;
/// Each of them at every hook; the emulated machine of `cargo xtask test-kernels` takes many times as long.
fn random_frames() -> u32 {
    match std::env::var_os("VIP_TEST_EMULATED") {
        Some(_) => 3_000,
        None => 30_000,
    }
}

#[test]
fn the_kernel_says_what_the_table_says() {
    if !may_use_bpf() {
        return;
    }
    let mut kernel = Kernel::load();
    for case in cases::table() {
        for name in programs_for(case.hook, &case.frame) {
            kernel.set_stage(case.stage, case.carrier);
            let ran = kernel.run(name, case.hook, &case.frame);
            let expected = expected(name, case.hook, case.stage, case.carrier, &case.frame);
            assert_eq!(ran, expected, "{name}: {}", case.name);
            let frame = match case.expect {
                Expect::Anonymised => cases::expected_probe(&case.frame),
                Expect::Answered => cases::expected_answer(&case),
                _ => case.frame.clone(),
            };
            assert_eq!(ran.frame, frame, "{name}: {}", case.name);
        }
    }
}

#[test]
fn the_kernel_says_what_the_host_says_of_any_frame() {
    if !may_use_bpf() {
        return;
    }
    let mut kernel = Kernel::load();
    let hooks = [Hook::Ingress, Hook::Guard, Hook::Egress, Hook::Forward];
    let mut runner = TestRunner::new(ProptestConfig {
        cases: random_frames(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let kernel = std::cell::RefCell::new(&mut kernel);
    let ran = std::cell::Cell::new(0);
    let frames = (any_frame(LONGEST), any_stage(), any::<bool>());
    let outcome = runner.run(&frames, |(frame, stage, carries)| {
        let carrier = if carries {
            cases::CARRIER
        } else {
            cases::OTHER
        };
        for hook in hooks {
            for name in programs_for(hook, &frame) {
                let mut kernel = kernel.borrow_mut();
                kernel.set_stage(stage, carrier);
                let outcome = kernel.run(name, hook, &frame);
                let expected = expected(name, hook, stage, carrier, &frame);
                prop_assert_eq!(outcome, expected, "{}, {:?}", name, hook);
                ran.set(ran.get() + 1);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("measured: {} runs of the programs", ran.get());
    assert!(ran.get() > 3 * random_frames(), "only {} runs", ran.get());
}

#[test]
fn a_flood_of_conflicts_is_told_once_and_counted_whole() {
    if !may_use_bpf() {
        return;
    }
    let mut kernel = Kernel::load();
    let case = cases::table()
        .into_iter()
        .find(|case| case.expect == Expect::Conflict && case.hook == Hook::Ingress)
        .expect("the table has conflicts");
    let events = kernel
        .programs
        .take_map(names::EVENTS)
        .expect("it is in the object");
    let mut events = aya::maps::RingBuf::try_from(events).expect("a ring buffer");
    kernel.set_stage(case.stage, case.carrier);
    let program: &Xdp = kernel
        .programs
        .program(names::XDP)
        .expect("it is in the object")
        .try_into()
        .expect("an XDP program");
    let options = TestRunOptions {
        data_in: Some(&case.frame),
        repeat: 1000,
        ..TestRunOptions::default()
    };
    program.test_run(options).expect("the kernel runs it");
    let mut told = 0;
    while events.next().is_some() {
        told += 1;
    }
    let rows = kernel.rows();
    let counted = kernel.counted();
    assert_eq!(counted.conflicts, 1000);
    // Once a second for each CPU that the run may have been moved to.
    assert!((1..=rows.len()).contains(&told), "{told} events");
}
