//! Commands that are run when something happens to a shared IP.
//!
//! They run on a thread of their own: the loop hands over what happened and goes on. What there is to say of a hook
//! (it failed, it ran into its limit) is logged and counted there.

mod occasion;
mod queue;
mod runner;

pub use occasion::{Kind, Occasion, Stranger};
pub use runner::{Counts, Runner};
