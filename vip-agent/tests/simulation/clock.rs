//! True time, which nobody in the simulation can read, and the boot clocks that run beside it.

use vip_agent::election::BootInstant;

/// Nanoseconds of true time since the simulation began.
pub type TrueNs = u64;

pub const MS: TrueNs = 1_000_000;
pub const SECOND: TrueNs = 1_000 * MS;

/// A machine's `CLOCK_BOOTTIME`: an offset of its own, a rate of its own, and no stop in suspend.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    /// At this true time the clock showed `then_ns`.
    set_at: TrueNs,
    then_ns: u64,
    /// How much faster than true time it runs, in millionths.
    drift_ppm: i32,
}

impl BootClock {
    /// A clock that shows `uptime` at `now`.
    pub fn new(now: TrueNs, uptime: u64, drift_ppm: i32) -> Self {
        Self {
            set_at: now,
            then_ns: uptime,
            drift_ppm,
        }
    }

    pub fn at(&self, now: TrueNs) -> BootInstant {
        BootInstant::from_ns(self.then_ns + stretch(now - self.set_at, self.drift_ppm))
    }

    /// The first true time at which the clock shows `instant`, `now` if it has already.
    pub fn when(&self, instant: BootInstant, now: TrueNs) -> TrueNs {
        let ahead = instant.as_ns().saturating_sub(self.then_ns);
        let estimate = self.set_at + shrink(ahead, self.drift_ppm);
        let exact = (estimate..).find(|at| self.at(*at) >= instant);
        exact.unwrap_or(estimate).max(now)
    }

    /// From now on it runs at another rate; what it shows does not jump.
    pub fn set_drift(&mut self, now: TrueNs, drift_ppm: i32) {
        *self = Self::new(now, self.at(now).as_ns(), drift_ppm);
    }
}

/// What a clock of this drift counts while `span` passes.
fn stretch(span: u64, drift_ppm: i32) -> u64 {
    scale(span, 1_000_000 + i64::from(drift_ppm), 1_000_000)
}

/// A little less than what passes while a clock of this drift counts `span`.
fn shrink(span: u64, drift_ppm: i32) -> u64 {
    scale(span, 1_000_000, 1_000_000 + i64::from(drift_ppm)).saturating_sub(2)
}

fn scale(span: u64, by: i64, over: i64) -> u64 {
    let scaled = i128::from(span) * i128::from(by) / i128::from(over);
    u64::try_from(scaled).expect("a span of a simulation fits")
}
