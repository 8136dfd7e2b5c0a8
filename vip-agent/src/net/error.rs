//! What can go wrong, and what a user should do about it.

use std::{io, net::IpAddr};

/// Why netlink did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// There is no way to talk to the kernel.
    #[error("a netlink socket cannot be opened: {0}")]
    Socket(#[source] io::Error),
    /// A socket for frames can't be had.
    #[error("a packet socket cannot be opened: {0}; run as root or with CAP_NET_RAW")]
    PacketSocket(#[source] io::Error),
    /// Interfaces or addresses can't be listed.
    #[error("{what} cannot be listed: {source}")]
    List {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// An address can't be put on an interface, or taken off.
    #[error(
        "{ip} cannot be {verb} interface {ifindex}: {source}{}",
        if is_permission(source) { "; run as root or with CAP_NET_ADMIN" } else { "" }
    )]
    Address {
        /// The address.
        ip: IpAddr,
        /// The interface's index.
        ifindex: u32,
        /// `put on` or `taken off`.
        verb: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
}

/// The kernel's answer as a number of `errno.h`, if it is one.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

fn is_permission(error: &rtnetlink::Error) -> bool {
    errno(error) == Some(nix::libc::EPERM)
}
