//! The traffic probe: a client that keeps talking to shared IPs, of both families, and tells what it noticed of each.
//!
//! Every tick (2 ms unless told otherwise) is one *round*, in which it asks of each shared IP:
//! - an ordinary ICMP echo request through the kernel's own socket, route and neighbour cache. Its answers make the [outages](report::Outage);
//! - a look-up (a broadcast ARP request, or a multicast Neighbour Solicitation), and an echo request to *each* node's MAC with the shared IP as
//!   destination, as raw frames. A round that more than one node answered, by look-up or by echo, is a round *answered by two*.
//!
//! | module | what it knows |
//! |---|---|
//! | [`frames`] | how a round's number travels in a frame and comes back, in each family |
//! | [`socket`] | packet and ICMP sockets |
//! | [`client`] | the thread that sends and receives |
//! | [`records`], [`report`] | what was sent and answered, and what follows from it |
//! | [`tap`] | what a node's own stack gets to see |

pub mod client;
pub mod frames;
pub mod records;
pub mod report;
pub mod socket;
pub mod tap;

pub use client::{Plan, Probe};
pub use report::{Outage, Report};
