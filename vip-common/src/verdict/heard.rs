//! What a frame of the neighbour protocols says and asks, whichever of the two it is of.

use crate::{
    abi::VipKey,
    frame::{
        Layout, Mac,
        arp::{self, Arp},
        ipv6::Ipv6,
        neighbour::{self, Neighbour},
    },
    reader::Reader,
};

/// Who has this address?
///
/// All of it is there for both protocols: of a field that one has not, the compiler makes a register
/// that is not set, and a verifier before Linux 6.10 does not see that nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// How it is asked.
    pub protocol: Protocol,
    /// Where the packet lies.
    pub layout: Layout,
    /// Where the answer goes, if it goes to whoever asked.
    pub to: Mac,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By an ARP request.
    Arp,
    /// By a Neighbour Solicitation.
    Solicitation,
}

/// What was heard.
pub(super) struct Heard {
    /// The address that the speaker says is its own, if it does.
    pub claimed: Option<VipKey>,
    pub claimant: Mac,
    /// The ARP operation or the ICMPv6 type.
    pub operation: u16,
    /// The address that it asks for, if it does.
    pub asked: Option<VipKey>,
    pub question: Question,
}

impl Heard {
    #[inline(always)]
    pub fn of_arp(packet: &Arp) -> Self {
        let asks = packet.operation == arp::REQUEST;
        Self {
            claimed: Some(VipKey::v4(packet.sender_ip)),
            claimant: packet.sender_mac,
            operation: packet.operation,
            asked: asks.then_some(VipKey::v4(packet.target_ip)),
            question: Question {
                protocol: Protocol::Arp,
                layout: packet.layout,
                to: packet.sender_mac,
            },
        }
    }

    /// `None` for a packet that is no valid message.
    ///
    /// A solicitation claims its source address as an ARP request does its sender's: whoever hears
    /// it caches that (RFC 4861 §7.2.3).
    #[inline(always)]
    pub fn of_ipv6(frame: &(impl Reader + ?Sized), packet: &Ipv6) -> Option<Self> {
        let Neighbour {
            is_checked,
            is_advertisement,
            target,
            mac,
        } = neighbour::incoming(frame, packet)?;
        let target = VipKey::v6(target);
        let (claimed, asked, operation) = if is_advertisement {
            (target, None, neighbour::ADVERTISEMENT)
        } else {
            let asked = target.filter(|_| is_checked);
            (VipKey::v6(packet.source), asked, neighbour::SOLICITATION)
        };
        Some(Self {
            claimed,
            claimant: mac,
            operation: u16::from(operation),
            asked,
            question: Question {
                protocol: Protocol::Solicitation,
                layout: packet.layout,
                to: mac,
            },
        })
    }
}
