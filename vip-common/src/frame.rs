//! Ethernet, ARP and IPv4, as far as they matter here.

use crate::reader::Reader;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where the destination MAC lies.
pub const ETH_DESTINATION: usize = 0;
/// Where the source MAC lies.
pub const ETH_SOURCE: usize = 6;
const ETH_TYPE: usize = 12;
const ETH_LEN: usize = 14;
const VLAN_LEN: usize = 4;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_VLAN: u16 = 0x8100;
/// The low 12 bits of a tag are the VLAN; 0 is none, only a priority (IEEE 802.1Q §9.6).
const VID_MASK: u16 = 0x0fff;

/// Offsets in an ARP packet for IPv4 over Ethernet (RFC 826).
pub mod arp {
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
}

const IPV4_SOURCE: usize = 12;
const IPV4_DESTINATION: usize = 16;

/// What a frame is, for our purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// IPv4.
    Ipv4 {
        /// Source address.
        source: [u8; 4],
        /// Destination address.
        destination: [u8; 4],
    },
    /// Anything else, also what is cut short, malformed, or of some VLAN.
    Other,
}

/// Where the payload of an Ethernet frame begins. An offset that is one of two constants, and not
/// a number that has to be remembered, is what the verifier can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Behind the plain header.
    Untagged,
    /// Behind a tag that names no VLAN.
    PriorityTagged,
}

/// Where the payload begins in a frame without a tag.
pub const UNTAGGED_PAYLOAD: usize = ETH_LEN;
/// Where it begins in a frame with one.
pub const TAGGED_PAYLOAD: usize = ETH_LEN + VLAN_LEN;

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

/// Parses a frame that starts with its Ethernet header.
#[inline(always)]
pub fn parse(frame: &(impl Reader + ?Sized)) -> Parsed {
    parse_known(frame).unwrap_or(Parsed::Other)
}

/// Whether a MAC is a group's: broadcast or multicast (IEEE 802 §8.2.2).
#[inline(always)]
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

#[inline(always)]
fn parse_known(frame: &(impl Reader + ?Sized)) -> Option<Parsed> {
    let ethertype = u16::from_be_bytes(frame.read(ETH_TYPE)?);
    match ethertype {
        TYPE_IPV4 | TYPE_ARP => {
            parse_payload::<UNTAGGED_PAYLOAD>(frame, ethertype, Layout::Untagged)
        }
        TYPE_VLAN => {
            let tag = u16::from_be_bytes(frame.read(ETH_LEN)?);
            if tag & VID_MASK != 0 {
                return None;
            }
            let inner = u16::from_be_bytes(frame.read(ETH_LEN + 2)?);
            parse_payload::<TAGGED_PAYLOAD>(frame, inner, Layout::PriorityTagged)
        }
        _ => None,
    }
}

#[inline(always)]
fn parse_payload<const AT: usize>(
    frame: &(impl Reader + ?Sized),
    ethertype: u16,
    layout: Layout,
) -> Option<Parsed> {
    match ethertype {
        TYPE_ARP => parse_arp::<AT>(frame, layout),
        TYPE_IPV4 => {
            let [version_and_length] = frame.read(AT)?;
            // A version of 4, and a header of at least five words (RFC 791 §3.1).
            if version_and_length >> 4 != 4 || version_and_length & 0xf < 5 {
                return None;
            }
            let destination = frame.read(AT + IPV4_DESTINATION)?;
            let source = frame.read(AT + IPV4_SOURCE)?;
            Some(Parsed::Ipv4 {
                source,
                destination,
            })
        }
        _ => None,
    }
}

#[inline(always)]
fn parse_arp<const AT: usize>(frame: &(impl Reader + ?Sized), layout: Layout) -> Option<Parsed> {
    if frame.read(AT + arp::HEAD)? != arp::HEAD_IPV4_OVER_ETHERNET {
        return None;
    }
    // The last field first: if that is there, all is.
    let target_ip = frame.read(AT + arp::TARGET_IP)?;
    Some(Parsed::Arp(Arp {
        layout,
        operation: u16::from_be_bytes(frame.read(AT + arp::OPERATION)?),
        sender_mac: frame.read(AT + arp::SENDER_MAC)?,
        sender_ip: frame.read(AT + arp::SENDER_IP)?,
        target_ip,
    }))
}
