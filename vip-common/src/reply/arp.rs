//! ARP: a request into its answer, or into a probe.

use crate::{
    frame::{ETH_DESTINATION, ETH_SOURCE, Layout, Mac, TAGGED_PAYLOAD, UNTAGGED_PAYLOAD, arp},
    reader::Writer,
};

/// Turns an ARP request into the reply that says `mac` (RFC 826: swap the fields, put in the
/// missing hardware address, send it to where the request came from).
///
/// A probe's reply has 0.0.0.0 as its target, which is the sender that the probe named (RFC 5227
/// §2.1.1). `None` if the frame is too short, which a parsed one is not.
#[inline(always)]
#[must_use = "a frame that was not written whole must not be sent"]
pub fn answer_arp(frame: &mut (impl Writer + ?Sized), layout: Layout, mac: Mac) -> Option<()> {
    match layout {
        Layout::Untagged => answer_arp_at::<UNTAGGED_PAYLOAD>(frame, mac),
        Layout::PriorityTagged => answer_arp_at::<TAGGED_PAYLOAD>(frame, mac),
    }
}

/// Turns an ARP request into a probe: asked in nobody's name (RFC 5227 §2.1.1).
#[inline(always)]
#[must_use = "a frame that was not written whole must not be sent"]
pub fn anonymise_arp(frame: &mut (impl Writer + ?Sized), layout: Layout) -> Option<()> {
    match layout {
        Layout::Untagged => frame.write(UNTAGGED_PAYLOAD + arp::SENDER_IP, [0; 4]),
        Layout::PriorityTagged => frame.write(TAGGED_PAYLOAD + arp::SENDER_IP, [0; 4]),
    }
}

#[inline(always)]
fn answer_arp_at<const AT: usize>(frame: &mut (impl Writer + ?Sized), mac: Mac) -> Option<()> {
    let asker: Mac = frame.read(AT + arp::SENDER_MAC)?;
    let asker_ip: [u8; 4] = frame.read(AT + arp::SENDER_IP)?;
    let asked_ip: [u8; 4] = frame.read(AT + arp::TARGET_IP)?;
    frame.write(ETH_DESTINATION, asker)?;
    frame.write(ETH_SOURCE, mac)?;
    frame.write(AT + arp::OPERATION, arp::REPLY.to_be_bytes())?;
    frame.write(AT + arp::SENDER_MAC, mac)?;
    frame.write(AT + arp::SENDER_IP, asked_ip)?;
    frame.write(AT + arp::TARGET_MAC, asker)?;
    frame.write(AT + arp::TARGET_IP, asker_ip)
}
