//! Neighbour discovery: a solicitation into its advertisement.

use crate::{
    checksum::Sum,
    frame::{
        ETH_DESTINATION, ETH_SOURCE, Layout, Mac, TAGGED_PAYLOAD, UNTAGGED_PAYLOAD,
        ipv6::{self, Address},
        neighbour,
    },
    reader::Writer,
};

/// With a target link-layer option, always: nobody has to know whether it may be left out.
const MESSAGE_LEN: u16 = 32;

/// How long the frame of an advertisement is, which [`answer_solicitation`] writes: what it is handed
/// must be of this length.
#[inline(always)]
pub const fn advertisement_len(layout: Layout) -> usize {
    let payload = match layout {
        Layout::Untagged => UNTAGGED_PAYLOAD,
        Layout::PriorityTagged => TAGGED_PAYLOAD,
    };
    payload + ipv6::LEN + MESSAGE_LEN as usize
}

/// Turns a solicitation into the advertisement that says `mac` (RFC 4861 §7.2.4), to be sent to
/// `to`: Override set, Router as `is_router` says, Solicited set.
///
/// Who asks in nobody's name, to see whether the address is free, is answered through all nodes'
/// group, and Solicited is clear (RFC 4861 §7.2.4, RFC 4862 §5.4.3). `None` if the frame is too
/// short.
#[inline(always)]
#[must_use = "a frame that was not written whole must not be sent"]
pub fn answer_solicitation(
    frame: &mut (impl Writer + ?Sized),
    layout: Layout,
    mac: Mac,
    to: Mac,
    is_router: bool,
) -> Option<()> {
    match layout {
        Layout::Untagged => answer_at::<UNTAGGED_PAYLOAD>(frame, mac, to, is_router),
        Layout::PriorityTagged => answer_at::<TAGGED_PAYLOAD>(frame, mac, to, is_router),
    }
}

#[inline(always)]
fn answer_at<const AT: usize>(
    frame: &mut (impl Writer + ?Sized),
    mac: Mac,
    to: Mac,
    is_router: bool,
) -> Option<()> {
    let message = AT + ipv6::LEN;
    let asker: Address = frame.read(AT + ipv6::SOURCE)?;
    let target: Address = frame.read(message + neighbour::TARGET)?;
    let mut flags = neighbour::OVERRIDE;
    if is_router {
        flags |= neighbour::ROUTER;
    }
    let (to, destination) = if asker == ipv6::UNSPECIFIED {
        (ipv6::ALL_NODES_MAC, ipv6::ALL_NODES)
    } else {
        flags |= neighbour::SOLICITED;
        (to, asker)
    };
    let [a, b, c, d, e, f] = mac;
    let option = [neighbour::TARGET_LINK_LAYER, 1, a, b, c, d, e, f];
    let mut sum = Sum::default();
    sum.add_address(&target);
    sum.add_address(&destination);
    sum.add_length(MESSAGE_LEN);
    sum.add([neighbour::ADVERTISEMENT, 0, 0, 0]);
    sum.add([flags, 0, 0, 0]);
    sum.add_address(&target);
    sum.add_word(option);
    let [high, low] = sum.checksum();

    frame.write(ETH_DESTINATION, to)?;
    frame.write(ETH_SOURCE, mac)?;
    let [length_high, length_low] = MESSAGE_LEN.to_be_bytes();
    // Version 6, no traffic class, no flow label.
    let head = [
        0x60,
        0,
        0,
        0,
        length_high,
        length_low,
        ipv6::ICMPV6,
        neighbour::HOP_LIMIT,
    ];
    frame.write(AT, head)?;
    frame.write(AT + ipv6::SOURCE, target)?;
    frame.write(AT + ipv6::DESTINATION, destination)?;
    frame.write(
        message,
        [neighbour::ADVERTISEMENT, 0, high, low, flags, 0, 0, 0],
    )?;
    frame.write(message + neighbour::OPTIONS, option)
}
