//! The agent: what it is made of. `main.rs` is only the door.

pub mod clock;
pub mod dataplane;
pub mod election;
pub mod state;
