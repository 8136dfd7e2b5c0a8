//! Lines that must be seen even when the test passes. libtest captures `println!`, so these go to stderr by hand.

use std::io::Write;
use std::time::Duration;

/// Writes one line to stderr past libtest's capture.
pub fn line(text: &str) {
    // Nobody to tell when stderr is gone.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Reports a measured figure beside its target.
pub fn measured(what: &str, value: Duration, target: Duration) {
    line(&format!(
        "measured: {what} {} (target {})",
        told(value),
        told(target)
    ));
}

/// A duration as people say it: `12 ms`, `1.53 s`.
pub fn told(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}
