//! Waiting for a condition, with a deadline and a sentence; never a bare sleep.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::interrupt;

const POLL: Duration = Duration::from_millis(10);

/// Asks again and again until there is an answer. An error from `ask` is "not yet" and is told when the time is over.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        interrupt::check()?;
        let answer = ask();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if started.elapsed() >= within {
            match answer {
                Err(error) => {
                    bail!("waited {within:?} in vain for {what}; the last error: {error:#}")
                }
                Ok(_) => bail!("waited {within:?} in vain for {what}"),
            }
        }
        thread::sleep(POLL);
    }
}

/// As [`until`], for a condition that is true or false.
pub fn until_true(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, within, || Ok(ask()?.then_some(())))
}

/// Checks that a condition holds all the time for so long.
pub fn holds(what: &str, during: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < during {
        interrupt::check()?;
        if !ask()? {
            bail!("{what}: no longer so after {:?}", started.elapsed());
        }
        thread::sleep(POLL);
    }
    Ok(())
}
