//! Ethernet, and what lies in it as far as it matters here: [`arp`], IPv4, [`ipv6`] and
//! [`neighbour`] discovery.

pub mod arp;
pub mod ipv6;
pub mod neighbour;

use crate::reader::Reader;
use arp::Arp;
use ipv6::Ipv6;

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
const TYPE_IPV6: u16 = 0x86dd;
/// The low 12 bits of a tag are the VLAN; 0 is none, only a priority (IEEE 802.1Q §9.6).
const VID_MASK: u16 = 0x0fff;

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
    /// IPv6.
    Ipv6(Ipv6),
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
        TYPE_IPV4 | TYPE_ARP | TYPE_IPV6 => {
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
        TYPE_ARP => arp::parse_at::<AT>(frame, layout).map(Parsed::Arp),
        TYPE_IPV6 => ipv6::parse_at::<AT>(frame, layout).map(Parsed::Ipv6),
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
