//! `cargo xtask chaos`: the testbed under random faults.

use crate::run::Failure;
use crate::testbed;

/// What of the run can be chosen.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// For how long.
    pub minutes: u32,
    /// What the faults are drawn from.
    pub seed: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            minutes: 10,
            seed: 1,
        }
    }
}

/// Returns only if it could not be started.
pub fn chaos(options: &Options) -> Result<(), Failure> {
    let Options { minutes, seed } = options;
    let arguments = [
        "--minutes",
        &minutes.to_string(),
        "--seed",
        &seed.to_string(),
    ];
    testbed::become_program("chaos", &arguments.map(str::to_owned))
}
