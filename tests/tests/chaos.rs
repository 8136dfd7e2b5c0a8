//! A short run of random faults; `cargo xtask chaos` is the long one.

use std::time::Duration;

use anyhow::{Result, ensure};
use vip_tests::bed::scenario;
use vip_tests::chaos::{self, BOUND, SETUP};
use vip_tests::say;

/// Another one than the long run's, so that the two don't always see the same.
const SEED: u64 = 4;
/// On top of the bound: this runs on busy machines too.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn through_storms_of_faults_never_two_answer_and_nobody_for_no_longer_than_must_be() -> Result<()> {
    scenario("chaos", SETUP, |bed| {
        let found = chaos::run(bed, Duration::from_secs(45), SEED, say::line)?;
        say::line(&found.table());
        say::measured(
            "chaos, longest outage once it could end",
            found.longest_after_it_could_end(),
            BOUND,
        );
        ensure!(found.by_two == 0 && found.oddities.is_empty(), "{found:#?}");
        ensure!(
            found.longest_after_it_could_end() <= BOUND + SLACK,
            "{found:#?}"
        );
        Ok(())
    })
}
