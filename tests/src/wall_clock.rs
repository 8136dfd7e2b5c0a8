//! A time of day that steps for agents alone: the machine's own is never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::command;

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shims/wall_clock.rs");

/// The time of day of the agents that are started with its [environment](WallClock::environment).
pub struct WallClock {
    shim: PathBuf,
    off_by: PathBuf,
}

impl WallClock {
    /// Builds the shim into a directory; the time of day is right at first.
    pub fn build(directory: &Path) -> Result<WallClock> {
        let shim = directory.join("wall_clock.so");
        let mut rustc = Command::new("rustc");
        rustc
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "cdylib",
                "-O",
                SHIM,
                "-o",
            ])
            .arg(&shim);
        command::succeed(&mut rustc).context("building the shim")?;
        Ok(WallClock {
            shim,
            off_by: directory.join("off-by"),
        })
    }

    /// What an agent needs to be subject to it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.shim)),
            ("VIP_WALL_CLOCK".to_owned(), text(&self.off_by)),
        ]
    }

    /// Steps it to so many years from the right time.
    pub fn step(&self, years: i64) -> Result<()> {
        let beside = self.off_by.with_extension("new");
        fs::write(&beside, (years * SECONDS_PER_YEAR).to_string())?;
        fs::rename(&beside, &self.off_by)?;
        Ok(())
    }
}

const SECONDS_PER_YEAR: i64 = 31_556_952;

/// The year, by the machine's own clock.
pub fn year() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(1970 + i64::try_from(since)? / SECONDS_PER_YEAR)
}
