//! IPv6's fixed header (RFC 8200 §3).

use super::Layout;
use crate::reader::Reader;

/// An IPv6 address, in network byte order.
pub type Address = [u8; 16];

/// The length of what follows the header.
pub const PAYLOAD_LENGTH: usize = 4;
/// What follows the header.
pub const NEXT_HEADER: usize = 6;
/// The hop limit.
pub const HOP_LIMIT: usize = 7;
/// The source address.
pub const SOURCE: usize = 8;
/// The destination address.
pub const DESTINATION: usize = 24;
/// The header's length.
pub const LEN: usize = 40;

/// The next header that is ICMPv6 (RFC 4443 §1).
pub const ICMPV6: u8 = 58;
/// Nobody's address (RFC 4291 §2.5.2).
pub const UNSPECIFIED: Address = [0; 16];
/// All nodes of the link, `ff02::1` (RFC 4291 §2.7.1).
pub const ALL_NODES: Address = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Its MAC (RFC 2464 §7).
pub const ALL_NODES_MAC: super::Mac = [0x33, 0x33, 0, 0, 0, 1];

/// How the groups begin to which solicitations are sent: `ff02::1:ff00:0/104` (RFC 4291 §2.7.1).
const SOLICITED_NODE: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];

/// An IPv6 packet. What follows the fixed header was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Where it lies in the frame.
    pub layout: Layout,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

/// Whether it is a group's address (RFC 4291 §2.7).
#[inline(always)]
pub fn is_multicast(address: &Address) -> bool {
    address[0] == 0xff
}

/// Whether it is a solicited-node group's address (RFC 4291 §2.7.1).
#[inline(always)]
pub fn is_solicited_node(address: &Address) -> bool {
    address.first_chunk() == Some(&SOLICITED_NODE)
}

/// Whether it is an address of one link (RFC 4291 §2.5.6), which means another one on another link.
#[inline(always)]
pub fn is_link_local(address: &Address) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

#[inline(always)]
pub(super) fn parse_at<const AT: usize>(
    frame: &(impl Reader + ?Sized),
    layout: Layout,
) -> Option<Ipv6> {
    let [version_and_class] = frame.read(AT)?;
    if version_and_class >> 4 != 6 {
        return None;
    }
    let destination = frame.read(AT + DESTINATION)?;
    let source = frame.read(AT + SOURCE)?;
    Some(Ipv6 {
        layout,
        source,
        destination,
    })
}
