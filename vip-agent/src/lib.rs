//! The agent: what it is made of. `main.rs` is only the door.

pub mod election;
