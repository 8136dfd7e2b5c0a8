//! Whether the cluster serves at all: who reads the log is told once when it no longer does, and
//! once when it does again, however often is asked meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// What went wrong since something last went right.
pub(super) struct Outage {
    /// A shorter one is not worth a line.
    grace: Duration,
    /// By endpoint.
    errors: Vec<Option<String>>,
    since: Option<Instant>,
    told: bool,
    ever_answered: bool,
}

impl Outage {
    pub fn new(endpoints: usize, grace: Duration) -> Self {
        Self {
            grace,
            errors: vec![None; endpoints],
            since: None,
            told: false,
            ever_answered: false,
        }
    }

    /// An endpoint did not serve. Returns whether this is to be told now: no endpoint does any
    /// more, for longer than the grace; before the first answer there is none.
    pub fn failed(&mut self, index: usize, error: String, now: Instant) -> bool {
        self.errors[index] = Some(error);
        let since = *self.since.get_or_insert(now);
        let lasts = !self.ever_answered || now >= since + self.grace;
        let tell = !self.told && lasts && self.errors.iter().all(Option::is_some);
        self.told |= tell;
        tell
    }

    /// An endpoint answered. Returns how long none did, if that was told.
    pub fn answered(&mut self, now: Instant) -> Option<Duration> {
        self.ever_answered = true;
        self.errors.fill(None);
        let since = self.since.take();
        let was_told = std::mem::take(&mut self.told);
        since.filter(|_| was_told).map(|since| now - since)
    }

    pub fn ever_answered(&self) -> bool {
        self.ever_answered
    }

    /// The last error of each endpoint that has one.
    pub fn errors(&self) -> Option<String> {
        let errors: Vec<&str> = self.errors.iter().flatten().map(String::as_str).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(500);
    const MS: Duration = Duration::from_millis(1);

    fn refused(outage: &mut Outage, index: usize, now: Instant) -> bool {
        outage.failed(index, format!("{index} refused"), now)
    }

    #[test]
    fn a_cluster_that_never_answered_is_told_of_once_all_were_asked() {
        let (mut outage, now) = (Outage::new(2, GRACE), Instant::now());
        assert!(!refused(&mut outage, 0, now));
        assert!(refused(&mut outage, 1, now));
        assert_eq!(outage.errors().as_deref(), Some("0 refused; 1 refused"));
        assert!(!refused(&mut outage, 0, now + 60 * GRACE), "once is enough");
    }

    #[test]
    fn an_outage_is_told_when_it_lasts_and_when_it_ends() {
        let (mut outage, now) = (Outage::new(1, GRACE), Instant::now());
        assert_eq!(outage.answered(now), None);
        assert!(!refused(&mut outage, 0, now));
        assert!(!refused(&mut outage, 0, now + GRACE - MS));
        assert!(refused(&mut outage, 0, now + GRACE));
        assert!(!refused(&mut outage, 0, now + 2 * GRACE));
        assert_eq!(outage.answered(now + 3 * GRACE), Some(3 * GRACE));
        assert_eq!(outage.errors(), None);
        assert!(
            !refused(&mut outage, 0, now + 9 * GRACE),
            "the next begins anew"
        );
    }

    #[test]
    fn one_that_is_over_soon_is_not_told() {
        let (mut outage, now) = (Outage::new(1, GRACE), Instant::now());
        outage.answered(now);
        assert!(!refused(&mut outage, 0, now));
        assert_eq!(outage.answered(now + MS), None);
    }

    #[test]
    fn a_dead_endpoint_among_others_is_no_outage() {
        let (mut outage, now) = (Outage::new(2, GRACE), Instant::now());
        outage.answered(now);
        for round in 0..10 {
            assert!(!refused(&mut outage, 0, now + round * GRACE));
            assert_eq!(outage.answered(now + round * GRACE + MS), None);
        }
    }
}
