//! The clock that deadlines are on, and the one that people read.

use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};

use crate::election::BootInstant;

/// Now on `CLOCK_BOOTTIME`, which goes on while the machine sleeps and is the one that
/// `bpf_ktime_get_boot_ns` reads.
pub fn boot_now() -> BootInstant {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has it");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    BootInstant::from_ns(seconds * 1_000_000_000 + nanoseconds)
}

/// The time of day, to be shown to people and for nothing else: it can be set to anything.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn time_of_day() -> SystemTime {
    SystemTime::now()
}
