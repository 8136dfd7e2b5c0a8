//! What a run found, and the table of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Kind;
use crate::say::told;

/// Where a storm is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// One fault alone, on the owner or on another.
    Alone(Kind, bool),
    /// Several at once.
    Several,
}

/// One storm's end.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Where it is counted.
    pub row: Row,
    /// The longest outage in it, in either family; zero if there was none.
    pub outage: Duration,
    /// The longest time from when an outage could have ended until it did.
    pub after_it_could_end: Duration,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// How many faults of each kind.
    pub faults: BTreeMap<Kind, usize>,
    /// Every storm.
    pub outcomes: Vec<Outcome>,
    /// How many rounds the probe asked.
    pub rounds: usize,
    /// In how many of them more than one node answered, both families added up.
    pub by_two: usize,
    /// Answers that contradict themselves.
    pub oddities: Vec<String>,
}

impl Findings {
    /// The longest time from when an outage could have ended until it did.
    pub fn longest_after_it_could_end(&self) -> Duration {
        let times = self
            .outcomes
            .iter()
            .map(|outcome| outcome.after_it_could_end);
        times.max().unwrap_or_default()
    }

    /// The table, and what it does not say.
    pub fn table(&self) -> String {
        let mut rows: BTreeMap<Row, Vec<Outcome>> = BTreeMap::new();
        for outcome in &self.outcomes {
            rows.entry(outcome.row).or_default().push(*outcome);
        }
        let mut lines = vec![
            line([
                "fault",
                "on",
                "storms",
                "outage p50",
                "p99",
                "max",
                "once it could end",
            ]),
            line([
                "-----",
                "--",
                "------",
                "----------",
                "---",
                "---",
                "-----------------",
            ]),
        ];
        for (row, outcomes) in rows {
            let (what, whom) = match row {
                Row::Alone(kind, true) => (kind.to_string(), "the owner"),
                Row::Alone(kind, false) => (kind.to_string(), "another"),
                Row::Several => ("several at once".to_owned(), ""),
            };
            let mut outages: Vec<Duration> = outcomes.iter().map(|one| one.outage).collect();
            outages.sort();
            let after = outcomes.iter().map(|one| one.after_it_could_end).max();
            lines.push(line([
                &what,
                whom,
                &outcomes.len().to_string(),
                &told(percentile(&outages, 50)),
                &told(percentile(&outages, 99)),
                &told(percentile(&outages, 100)),
                &told(after.unwrap_or_default()),
            ]));
        }
        let faults = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        lines.push(String::new());
        lines.push(format!(
            "{} faults in {} storms: {}",
            self.faults.values().sum::<usize>(),
            self.outcomes.len(),
            faults.collect::<Vec<_>>().join(", ")
        ));
        lines.push(format!(
            "{} rounds in each family, answered by two: {}",
            self.rounds, self.by_two
        ));
        lines.join("\n")
    }
}

fn line(cells: [&str; 7]) -> String {
    let [fault, on, storms, p50, p99, max, after] = cells;
    format!("{fault:<22}  {on:<9}  {storms:>6}  {p50:>10}  {p99:>8}  {max:>8}  {after:>17}")
}

/// The smallest value that so many percent of all do not exceed. Of sorted values, at least one.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let of = |count: u64| (1..=count).map(Duration::from_secs).collect::<Vec<_>>();
        assert_eq!(percentile(&of(1), 50), Duration::from_secs(1));
        assert_eq!(percentile(&of(4), 50), Duration::from_secs(2));
        assert_eq!(percentile(&of(4), 99), Duration::from_secs(4));
        assert_eq!(percentile(&of(200), 99), Duration::from_secs(198));
        assert_eq!(percentile(&of(200), 100), Duration::from_secs(200));
    }
}
