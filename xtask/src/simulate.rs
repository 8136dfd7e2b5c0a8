//! `cargo xtask simulate`: the election under random faults, for as many schedules as asked for.

use crate::run::{self, Failure, step};
use crate::{needs, setup};

/// What of a simulation can be chosen.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// How many schedules.
    pub schedules: u32,
    /// What they are drawn from.
    pub seed: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            schedules: 100_000,
            seed: 1,
        }
    }
}

/// Runs the schedules, then the mutants; the test itself says how many it ran.
pub fn simulate(options: &Options) -> Result<(), Failure> {
    setup::setup(&[needs::ALWAYS])?;
    let mut test = run::cargo();
    test.args(["test", "--release", "-p", "vip-agent"])
        .args(["--test", "simulation", "--", "--nocapture"])
        .env("VIP_SIM_SCHEDULES", options.schedules.to_string())
        .env("VIP_SIM_SEED", options.seed.to_string());
    step("simulate", &mut test)
}
