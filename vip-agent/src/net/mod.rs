//! The network, from user space: interfaces, addresses, announcements. Adapters; what to do with
//! them is decided elsewhere.

mod address;
mod announce;
mod error;
mod frame;
mod gratuitous;
mod links;
mod monitor;
mod neighbours;
mod pace;
mod probe;
mod schedule;
mod socket;
mod sockets;
#[cfg(test)]
pub(crate) mod stage;
mod sysctl;
#[cfg(test)]
mod tests;

pub use address::AddressManager;
pub use announce::{AnnounceError, Announcer};
pub use error::{NetError, no_ipv6};
pub use gratuitous::{gratuitous_arp, unsolicited_advertisement};
pub use links::{Link, links};
pub use monitor::{LinkMonitor, Removed};
pub use neighbours::NeighbourManager;
pub use pace::Pace;
pub use probe::{arp_probe, neighbor_probe};
pub use schedule::Schedule;
pub use sockets::destroy_bound_to;
pub use sysctl::{has_ipv6, is_router};
