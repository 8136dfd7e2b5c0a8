//! `cargo xtask demo`: four ways to lose an owner, told as they happen.

use crate::run::Failure;
use crate::testbed;

/// What becomes of the demo's network, other than its removal at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// It is left standing.
    Keep,
    /// One left standing is removed.
    Down,
}

/// Returns only if the demo could not be started.
pub fn demo(ending: Option<Ending>) -> Result<(), Failure> {
    let arguments: Vec<String> = ending
        .map(Ending::flag)
        .map(str::to_owned)
        .into_iter()
        .collect();
    testbed::become_program("demo", &arguments)
}

impl Ending {
    fn flag(self) -> &'static str {
        match self {
            Ending::Keep => "--keep",
            Ending::Down => "--down",
        }
    }
}
