//! ARP for IPv4 over Ethernet (RFC 826).

use super::{Layout, Mac};
use crate::reader::Reader;

/// The fixed part: hardware and protocol type and their lengths.
pub const HEAD: usize = 0;
/// What `HEAD` must be: Ethernet, IPv4, 6, 4.
pub const HEAD_IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// The operation.
pub const OPERATION: usize = 6;
/// The sender's MAC.
pub const SENDER_MAC: usize = 8;
/// The sender's IP.
pub const SENDER_IP: usize = 14;
/// The target's MAC.
pub const TARGET_MAC: usize = 18;
/// The target's IP.
pub const TARGET_IP: usize = 24;
/// A request.
pub const REQUEST: u16 = 1;
/// A reply.
pub const REPLY: u16 = 2;

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Where it lies in the frame.
    pub layout: Layout,
    /// 1 for a request, 2 for a reply; others exist.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: Mac,
    /// For which address; 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    pub sender_ip: [u8; 4],
    /// About which address.
    pub target_ip: [u8; 4],
}

#[inline(always)]
pub(super) fn parse_at<const AT: usize>(
    frame: &(impl Reader + ?Sized),
    layout: Layout,
) -> Option<Arp> {
    if frame.read(AT + HEAD)? != HEAD_IPV4_OVER_ETHERNET {
        return None;
    }
    // The last field first: if that is there, all is.
    let target_ip = frame.read(AT + TARGET_IP)?;
    Some(Arp {
        layout,
        operation: u16::from_be_bytes(frame.read(AT + OPERATION)?),
        sender_mac: frame.read(AT + SENDER_MAC)?,
        sender_ip: frame.read(AT + SENDER_IP)?,
        target_ip,
    })
}
