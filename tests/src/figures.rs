//! Figures of a thing that was played several times.

use std::env;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

/// How many times things are played whose figures are a distribution.
const ROUNDS: &str = "VIP_TEST_ROUNDS";

/// `VIP_TEST_ROUNDS`, or what a plain run does with.
pub fn rounds(plain: usize) -> Result<usize> {
    env::var(ROUNDS)
        .map_or(Ok(plain), |text| text.parse())
        .context(ROUNDS)
}

/// Figures of one thing.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    sorted: Vec<Duration>,
}

impl Figures {
    /// Adds one.
    pub fn add(&mut self, figure: Duration) {
        let at = self.sorted.partition_point(|other| *other <= figure);
        self.sorted.insert(at, figure);
    }

    /// The smallest; zero if there is none.
    pub fn least(&self) -> Duration {
        self.sorted.first().copied().unwrap_or_default()
    }

    /// The middle one, of an even number the upper; zero if there is none.
    pub fn median(&self) -> Duration {
        let middle = self.sorted.get(self.sorted.len() / 2);
        middle.copied().unwrap_or_default()
    }

    /// The largest; zero if there is none.
    pub fn worst(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Figures {
    fn from_iter<I: IntoIterator<Item = Duration>>(figures: I) -> Figures {
        let mut sorted: Vec<Duration> = figures.into_iter().collect();
        sorted.sort();
        Figures { sorted }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |figure: Duration| format!("{:.1} ms", figure.as_secs_f64() * 1000.0);
        write!(
            formatter,
            "median {}, worst {} of {}",
            told(self.median()),
            told(self.worst()),
            self.sorted.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends_are_told_whatever_the_order() {
        let mut figures: Figures = [7, 1, 3].map(Duration::from_millis).into_iter().collect();
        figures.add(Duration::from_millis(2));
        assert_eq!(figures.least(), Duration::from_millis(1));
        assert_eq!(figures.to_string(), "median 3.0 ms, worst 7.0 ms of 4");
        assert_eq!(Figures::default().worst(), Duration::ZERO);
    }
}
