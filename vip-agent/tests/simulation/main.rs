//! The election under simulated faults: the machine that ships, on virtual clocks, against a model of
//! etcd. Invariants are checked at every step, and at the end that somebody serves.
//!
//! `VIP_SIM_SCHEDULES` and `VIP_SIM_SEED` say how many schedules to run and from which seed;
//! `cargo xtask simulate` sets them.

mod checks;
mod clock;
mod etcd;
mod kept;
mod machine;
mod node;
mod schedule;
mod world;

use std::{cell::Cell, env, time::Duration};

use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use checks::Broken;
use machine::Mutant;
use schedule::{ambush, any_schedule};
use world::{Tally, World};

/// What a plain test run affords.
const FEW: u32 = 2_000;
/// Within so many schedules each mutant is found out.
const ENOUGH_FOR_A_MUTANT: u32 = 20_000;
/// So many are laid for what chance does not find.
const AMBUSHES: u64 = 200;

#[test]
fn no_schedule_breaks_a_rule() {
    let (schedules, seed) = (
        setting("VIP_SIM_SCHEDULES", FEW),
        setting("VIP_SIM_SEED", 1),
    );
    let first = setting("VIP_SIM_FROM", 0);
    let (mut events, mut longest) = (0, Duration::ZERO);
    let (mut moved, mut most, mut calm_after) = ([0_u32; 2], 0, Duration::ZERO);
    for number in first..first + schedules {
        let mut runner = runner(seed, number);
        let tally = Cell::new(Tally::default());
        let outcome = runner.run(&any_schedule(), |schedule| {
            let ran = World::new(&schedule, None, false).run();
            tally.set(ran.map_err(|violation| TestCaseError::fail(violation.to_string()))?);
            Ok(())
        });
        if let Err(TestError::Fail(violation, schedule)) = outcome {
            let _ = World::new(&schedule, None, env::var("VIP_SIM_TRACE").is_ok()).run();
            panic!("schedule {number} of seed {seed}: {violation}: {schedule:#?}");
        }
        events += tally.get().events;
        longest = longest.max(tally.get().served_after);
        let [before, after] = tally.get().moved;
        moved = [moved[0] + before, moved[1] + after];
        most = most.max(after);
        calm_after = calm_after.max(tally.get().moved_until);
    }
    println!(
        "simulated {schedules} schedules of seed {seed}, {events} events: no rule broken; all served \
         again at most {longest:?} after the last fault; {} keys handed over before it and {} after, \
         {most} at most in one schedule, the last {calm_after:?} after",
        moved[0], moved[1]
    );
}

#[test]
fn every_mutant_is_caught() {
    let uncaught: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|mutant| first_violation_of(*mutant).is_none())
        .collect();
    assert!(uncaught.is_empty(), "not caught: {uncaught:?}");
}

fn first_violation_of(mutant: Mutant) -> Option<()> {
    let begin = last_found_at(mutant);
    let drawn = (begin..ENOUGH_FOR_A_MUTANT).chain(0..begin).map(|number| {
        let tree = any_schedule().new_tree(&mut runner(1, number));
        let schedule = tree.expect("no schedule is turned down").current();
        (format!("schedule {number}"), schedule)
    });
    let needs_ambush = mutant == Mutant::HandsOverToAnyLease;
    let ambushes = (0..AMBUSHES).filter(|_| needs_ambush);
    let ambushes = ambushes.map(|seed| (format!("ambush {seed}"), ambush(seed)));
    for (name, schedule) in ambushes.chain(drawn) {
        // Unable to serve is not what these rules are there against.
        let beside_the_point = |what: &Broken| {
            matches!(
                what,
                Broken::NobodyServes { .. }
                    | Broken::TakesItselfForAnother { .. }
                    | Broken::Misplaced { .. }
            )
        };
        if let Err(violation) = World::new(&schedule, Some(mutant), false).run()
            && !beside_the_point(&violation.what)
        {
            println!("{mutant:?}: caught by {name}: {violation}");
            return Some(());
        }
    }
    None
}

/// Near the schedule that found it out last: most do early, and what only a rare schedule finds need not
/// be looked for anew in each run.
fn last_found_at(mutant: Mutant) -> u32 {
    match mutant {
        Mutant::ClaimsWhatItFoundVacant => 10_800,
        Mutant::ReopensOnTheOldRevision => 2_780,
        Mutant::TtlAskedFor => 2_110,
        Mutant::ReopensAfterAHandOver => 540,
        Mutant::DeadlineFromReceipt | Mutant::DeadlineFromNewestSend => 740,
        Mutant::NoConfirmingRead => 125,
        Mutant::HandsOverWhateverIsThere => 3_020,
        _ => 0,
    }
}

/// Each schedule has a generator of its own, so that one is found again by its number.
fn runner(seed: u32, number: u32) -> TestRunner {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn setting(name: &str, default: u32) -> u32 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text}: not a number")),
        Err(_) => default,
    }
}
