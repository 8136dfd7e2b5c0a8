//! `cargo xtask chaos`: the testbed under random faults, several at once, and what a client noticed.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vip_tests::bed::Bed;
use vip_tests::chaos::{self, BOUND, SETUP};
use vip_tests::say::told;
use vip_tests::{agent, interrupt, privilege};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (minutes, seed) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--minutes", minutes, "--seed", seed] => (minutes.parse::<u64>(), seed.parse::<u64>()),
        _ => {
            eprintln!("usage: chaos --minutes N --seed S");
            return ExitCode::from(2);
        }
    };
    let (Ok(minutes), Ok(seed)) = (minutes, seed) else {
        eprintln!("chaos: {arguments:?}: whole numbers are wanted");
        return ExitCode::from(2);
    };
    match storm(Duration::from_secs(60 * minutes), seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::requested() => {
            eprintln!("chaos: interrupted; everything is cleared away");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn storm(lasting: Duration, seed: u64) -> Result<()> {
    if let Some(why) = privilege::lacking() {
        bail!("{why}");
    }
    println!(
        "random faults for {} min, seed {seed}, on three nodes with an etcd member each; {}",
        lasting.as_secs() / 60,
        agent::binary()?.display()
    );
    interrupt::listen()?;
    let mut bed = Bed::raise(SETUP)?;
    let found = chaos::run(&mut bed, lasting, seed, |line| println!("{line}"));
    if found.is_err() && !interrupt::requested() {
        eprintln!("{}", bed.log_tails());
    }
    bed.take_down().context("clearing away")?;
    let found = found?;
    println!("\n{}", found.table());
    println!(
        "outage: the longest of a storm; once it could end: from when etcd had a leader, an agent that reaches it ran with its cable in, and \
         nothing more was broken, until the client was answered; at most {}, bound {}",
        told(found.longest_after_it_could_end()),
        told(BOUND)
    );
    println!("the same storms again: cargo xtask chaos --seed {seed}");
    if found.by_two > 0 || !found.oddities.is_empty() {
        bail!("rounds were answered by two: {found:#?}");
    }
    if found.longest_after_it_could_end() > BOUND {
        bail!(
            "an outage lasted for {} when it could have ended, more than {}",
            told(found.longest_after_it_could_end()),
            told(BOUND)
        );
    }
    Ok(())
}
