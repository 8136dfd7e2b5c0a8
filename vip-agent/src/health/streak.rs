//! When successes and failures in a row become a verdict.

/// The counting of one check.
#[derive(Debug)]
pub(super) struct Streak {
    rise: u8,
    fall: u8,
    /// The verdict, once there is one.
    passes: Option<bool>,
    /// So many results in a row that speak against it.
    against: u8,
}

impl Streak {
    pub fn new(rise: u8, fall: u8) -> Self {
        Self {
            rise,
            fall,
            passes: None,
            against: 0,
        }
    }

    /// Counts a result. Returns the verdict if it is a new one. The very first result is one by itself:
    /// a start is not to wait for `rise`.
    pub fn note(&mut self, passed: bool) -> Option<bool> {
        let needed = match self.passes {
            None => 1,
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        if self.passes == Some(passed) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.passes = Some(passed);
        self.passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `results` and what each is answered with: `+` and `-` for a pass and a failure, `.` for none.
    fn verdicts(rise: u8, fall: u8, results: &str) -> String {
        let mut streak = Streak::new(rise, fall);
        let verdict = |result| match streak.note(result == '+') {
            Some(true) => '+',
            Some(false) => '-',
            None => '.',
        };
        results.chars().map(verdict).collect()
    }

    #[test]
    fn a_verdict_changes_after_so_many_in_a_row_and_is_made_by_the_first() {
        for (rise, fall, results, expected) in [
            (2, 3, "+", "+"),
            (2, 3, "-", "-"),
            (2, 3, "+++", "+.."),
            (2, 3, "+---", "+..-"),
            (2, 3, "+--+--+---", "+........-"),
            (2, 3, "-+-+-++", "-.....+"),
            (2, 3, "-++---++", "-.+..-.+"),
            (1, 1, "+-+-", "+-+-"),
            (1, 3, "-+---+", "-+..-+"),
            // What flaps bounces nothing.
            (2, 3, "+-+--+-+--+-", "+..........."),
            (
                255,
                255,
                &"+-".repeat(300),
                &format!("+{}", ".".repeat(599)),
            ),
        ] {
            assert_eq!(
                verdicts(rise, fall, results),
                expected,
                "{rise} {fall} {results}"
            );
        }
    }
}
