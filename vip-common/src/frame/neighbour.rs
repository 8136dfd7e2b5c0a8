//! Neighbour Solicitations and Advertisements (RFC 4861 §4.3, §4.4).
//!
//! A message that begins behind extension headers is not recognised: the kernel judges it by itself. One
//! that carries more than [`MOST_OPTION_WORDS`] of options is not [checked](Neighbour::is_checked).

use super::{
    Layout, Mac, TAGGED_PAYLOAD, UNTAGGED_PAYLOAD,
    ipv6::{self, Address, Ipv6},
};
use crate::{checksum::Sum, reader::Reader};

/// Offsets in a message, which begins with the ICMPv6 header.
pub const CHECKSUM: usize = 2;
/// An advertisement's flags.
pub const FLAGS: usize = 4;
/// About which address.
pub const TARGET: usize = 8;
/// The options, each a whole number of words of eight bytes (RFC 4861 §4.6).
pub const OPTIONS: usize = 24;

/// The ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 135;
/// That of an advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// The option that names the sender's MAC.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// The option that names the target's MAC.
pub const TARGET_LINK_LAYER: u8 = 2;
/// The sender is a router.
pub const ROUTER: u8 = 0x80;
/// It answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// It replaces what is cached.
pub const OVERRIDE: u8 = 0x20;

/// Messages are sent with this hop limit and believed with no other: no router has passed them on.
pub const HOP_LIMIT: u8 = 255;
/// The options that are looked at; a link-layer address takes one word, a nonce another.
pub const MOST_OPTION_WORDS: usize = 4;

/// A valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Whether all of it was looked at: what it claims is taken for claimed without, but what it
    /// asks is not answered.
    pub is_checked: bool,
    /// Whether it is an advertisement, and no solicitation.
    pub is_advertisement: bool,
    /// About which address.
    pub target: Address,
    /// The MAC that its link-layer option names, else the frame's source; that as well of one that was
    /// not checked.
    pub mac: Mac,
}

/// A message that goes out: what it is, and about which address. Nothing else is asked of it.
#[inline(always)]
pub fn outgoing(frame: &(impl Reader + ?Sized), packet: &Ipv6) -> Option<(u8, Address)> {
    match packet.layout {
        Layout::Untagged => outgoing_at::<UNTAGGED_PAYLOAD>(frame),
        Layout::PriorityTagged => outgoing_at::<TAGGED_PAYLOAD>(frame),
    }
}

/// The message in a packet that came in, if it is a valid one (RFC 4861 §7.1.1, §7.1.2).
#[inline(always)]
pub fn incoming(frame: &(impl Reader + ?Sized), packet: &Ipv6) -> Option<Neighbour> {
    match packet.layout {
        Layout::Untagged => incoming_at::<UNTAGGED_PAYLOAD>(frame, packet),
        Layout::PriorityTagged => incoming_at::<TAGGED_PAYLOAD>(frame, packet),
    }
}

#[inline(always)]
fn outgoing_at<const AT: usize>(frame: &(impl Reader + ?Sized)) -> Option<(u8, Address)> {
    let [next_header] = frame.read(AT + ipv6::NEXT_HEADER)?;
    if next_header != ipv6::ICMPV6 {
        return None;
    }
    let [kind] = frame.read(AT + ipv6::LEN)?;
    let is_known = kind == SOLICITATION || kind == ADVERTISEMENT;
    let target = frame.read(AT + ipv6::LEN + TARGET)?;
    is_known.then_some((kind, target))
}

#[inline(always)]
fn incoming_at<const AT: usize>(
    frame: &(impl Reader + ?Sized),
    packet: &Ipv6,
) -> Option<Neighbour> {
    let message = AT + ipv6::LEN;
    let [next_header, hop_limit] = frame.read(AT + ipv6::NEXT_HEADER)?;
    if next_header != ipv6::ICMPV6 || hop_limit != HOP_LIMIT {
        return None;
    }
    let head: [u8; 8] = frame.read(message)?;
    let [kind, code, _, _, flags, ..] = head;
    let is_advertisement = kind == ADVERTISEMENT;
    if !is_advertisement && kind != SOLICITATION || code != 0 {
        return None;
    }
    let target: Address = frame.read(message + TARGET)?;
    if ipv6::is_multicast(&target) {
        return None;
    }
    let length = u16::from_be_bytes(frame.read(AT + ipv6::PAYLOAD_LENGTH)?);
    let options = usize::from(length).checked_sub(OPTIONS)?;
    if options > 8 * MOST_OPTION_WORDS {
        return Some(Neighbour {
            is_checked: false,
            is_advertisement,
            target,
            mac: frame.read(super::ETH_SOURCE)?,
        });
    }
    if options % 8 != 0 {
        return None;
    }
    let mut sum = Sum::default();
    sum.add_address(&packet.source);
    sum.add_address(&packet.destination);
    sum.add_length(length);
    sum.add_word(head);
    sum.add_address(&target);
    let wanted = if is_advertisement {
        TARGET_LINK_LAYER
    } else {
        SOURCE_LINK_LAYER
    };
    let link_layer = add_options(frame, message + OPTIONS, options / 8, wanted, &mut sum)?;
    if !sum.is_right() {
        return None;
    }
    let is_valid = if is_advertisement {
        flags & SOLICITED == 0 || !ipv6::is_multicast(&packet.destination)
    } else {
        packet.source != ipv6::UNSPECIFIED
            || link_layer.is_none() && ipv6::is_solicited_node(&packet.destination)
    };
    let mac = match link_layer {
        Some(mac) => mac,
        None => frame.read(super::ETH_SOURCE)?,
    };
    is_valid.then_some(Neighbour {
        is_checked: true,
        is_advertisement,
        target,
        mac,
    })
}

/// The MAC of the first option of the type `wanted`; `None` if an option has no length, or one
/// that does not end with the message's, or if the wanted one is not an Ethernet's.
#[inline(always)]
fn add_options(
    frame: &(impl Reader + ?Sized),
    at: usize,
    words: usize,
    wanted: u8,
    sum: &mut Sum,
) -> Option<Option<Mac>> {
    let mut link_layer = None;
    let mut next = 0;
    for word in 0..MOST_OPTION_WORDS {
        if word == words {
            break;
        }
        let bytes: [u8; 8] = frame.read(at + 8 * word)?;
        sum.add_word(bytes);
        if word == next {
            let [kind, length, mac @ ..] = bytes;
            if length == 0 || kind == wanted && length != 1 {
                return None;
            }
            if kind == wanted && link_layer.is_none() {
                link_layer = Some(mac);
            }
            next += usize::from(length);
        }
    }
    (next == words).then_some(link_layer)
}
