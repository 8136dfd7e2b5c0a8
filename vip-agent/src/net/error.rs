//! What can go wrong, and what a user should do about it.

use std::{io, net::IpAddr};

use nix::{libc, net::if_::if_indextoname};

/// Why the network could not be asked or changed. Each line is whole: none has a source that would
/// say the same again.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// There is no way to talk to the kernel.
    #[error("a netlink socket cannot be opened: {why}{}", mend(.0, "CAP_NET_ADMIN"), why = .0)]
    Socket(io::Error),
    /// A socket for frames can't be had.
    #[error("a packet socket cannot be opened: {why}{}", mend(.0, "CAP_NET_RAW"), why = .0)]
    PacketSocket(io::Error),
    /// Interfaces or addresses can't be listed.
    #[error("{what} cannot be listed: {why}{}", mend(why, "CAP_NET_ADMIN"))]
    List {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        why: io::Error,
    },
    /// An address can't be put on an interface, or taken off.
    #[error(
        "{ip} cannot be {verb} interface {interface}: {why}{}",
        mend(why, "CAP_NET_ADMIN")
    )]
    Address {
        /// The address.
        ip: IpAddr,
        /// The interface's name, or its index if it has gone.
        interface: String,
        /// `put on` or `taken off`.
        verb: &'static str,
        /// The kernel's answer.
        why: io::Error,
    },
    /// The kernel can't be told whom an address belongs to.
    #[error(
        "the neighbour entry of {ip} on interface {interface} cannot be changed: {why}{}",
        mend(why, "CAP_NET_ADMIN")
    )]
    Neighbour {
        /// The address.
        ip: IpAddr,
        /// The interface's name, or its index if it has gone.
        interface: String,
        /// The kernel's answer.
        why: io::Error,
    },
    /// The interface takes no IPv6 addresses, or the kernel has no IPv6.
    #[error("{ip} cannot be put on interface {interface}: {}", no_ipv6(interface))]
    Ipv6Off {
        /// The address.
        ip: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// Local connections of an address can't be ended.
    #[error(
        "local connections from {ip} cannot be ended: {why}{}",
        mend(why, "CAP_NET_ADMIN")
    )]
    Sockets {
        /// The address.
        ip: IpAddr,
        /// The kernel's answer.
        why: io::Error,
    },
    /// The kernel counts lifetimes in seconds, and takes zero for a mistake.
    #[error(
        "{ip} cannot be put on interface {interface} for less than a second; use a longer lease"
    )]
    Lifetime {
        /// The address.
        ip: IpAddr,
        /// The interface's name, or its index if it has gone.
        interface: String,
    },
}

/// The interface as a user knows it.
pub(super) fn interface_name(ifindex: u32) -> String {
    match if_indextoname(ifindex) {
        // The library takes "none" for an empty name.
        Ok(name) if !name.is_empty() => name.to_string_lossy().into_owned(),
        _ => format!("with index {ifindex}"),
    }
}

/// What is wrong where an interface takes no IPv6 addresses, and how that is mended.
pub fn no_ipv6(interface: &str) -> String {
    format!(
        "IPv6 is off there; `sysctl -w net/ipv6/conf/{interface}/disable_ipv6=0` (if there is no such \
         setting, its MTU is below 1280, or the kernel was started with ipv6.disable=1)"
    )
}

/// What to do about it, where that is known.
pub(super) fn mend(why: &io::Error, capability: &str) -> String {
    match why.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("; run as root or with {capability}"),
        Some(libc::ENODEV | libc::ENXIO) => "; it has gone: see `ip link`".to_owned(),
        Some(libc::ENETDOWN) => "; it is down: `ip link set … up`".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit of open files".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_lack_of_privilege_says_what_is_wanting_and_says_it_once() {
        let error = NetError::Address {
            ip: IpAddr::from([10, 0, 0, 100]),
            interface: "eth0".to_owned(),
            verb: "put on",
            why: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert_eq!(
            error.to_string(),
            "10.0.0.100 cannot be put on interface eth0: Operation not permitted (os error 1); run as \
             root or with CAP_NET_ADMIN"
        );
        assert!(error.source().is_none());
    }

    #[test]
    fn an_interface_that_is_not_there_goes_by_its_index() {
        assert_eq!(interface_name(u32::MAX), "with index 4294967295");
    }
}
