//! What the kernel program and the agent share.
//!
//! - [`abi`]: what lies in the maps, byte for byte;
//! - [`reader`]: how a frame is read and written, with every access bounded;
//! - [`frame`]: Ethernet, ARP, IPv4, IPv6 and neighbour discovery, as far as they matter here;
//! - [`checksum`]: the one of ICMPv6;
//! - [`verdict`]: what becomes of a frame: three pure functions;
//! - [`reply`]: a request turned into its answer, in place;
//! - [`cases`]: frames and what must become of them, for the tests on the host and in the kernel.
//!
//! No I/O and no allocation: the same code runs in the kernel and under the host's tests.

#![no_std]

#[cfg(feature = "cases")]
extern crate alloc;

pub mod abi;
#[cfg(feature = "cases")]
pub mod cases;
pub mod checksum;
pub mod frame;
pub mod reader;
pub mod reply;
pub mod verdict;
