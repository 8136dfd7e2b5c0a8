//! The neighbour protocols on the wire: who sent what, what it says, and what tcpdump makes of it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`tap`] | taps at the switch's ports: what each node sends |
//! | [`said`] | what a frame says, read by pnet |
//! | [`asked`] | questions, valid ones and others |
//! | [`tcpdump`] | captures, and their decoding |

pub mod asked;
pub mod said;
pub mod tap;
pub mod tcpdump;

pub use said::{Said, Spoken};
pub use tap::{Sent, Tap};
