//! The agent: what it is made of. `main.rs` is only the door.

pub mod cleanup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod driver;
pub mod election;
pub mod health;
pub mod hooks;
pub mod net;
pub mod program;
pub mod state;
pub mod status;
pub mod store;
