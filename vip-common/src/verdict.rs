//! What becomes of a frame: pure functions of the frame and of what the maps say.
//!
//! A frame that concerns no shared IP pays for one parse and one look-up (ARP names two addresses
//! and may pay for a second); the clock is read only for those that do.

use crate::{
    abi::{Gate, VipKey},
    frame::{Arp, ETH_DESTINATION, Layout, Mac, Parsed, arp, is_group, parse},
    reader::Reader,
};

/// What the maps and the clock say.
pub trait Surroundings {
    /// The gate of a shared IP, if it is one.
    fn gate(&self, vip: &VipKey) -> Option<Gate>;
    /// The lease's deadline, `CLOCK_BOOTTIME`.
    fn lease_deadline_ns(&self) -> u64;
    /// Now, `CLOCK_BOOTTIME`.
    fn now_ns(&self) -> u64;
    /// Whether a live member has this MAC.
    fn is_member(&self, mac: Mac) -> bool;
    /// The interface that the frame comes in or goes out by.
    fn ifindex(&self) -> u32;
    /// Whether the frame goes out because it came in elsewhere.
    fn is_forwarded(&self) -> bool;
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It concerns no shared IP: pass it, byte for byte, and count nothing.
    NotOurs,
    /// Turn the ARP request into its answer and send that back.
    Answer {
        /// The counters' row.
        slot: u32,
        /// Where the ARP packet lies.
        layout: Layout,
        /// What to answer.
        mac: Mac,
    },
    /// Take the shared IP out of the ARP request, and pass that as a probe.
    Anonymise {
        /// The counters' row.
        slot: u32,
        /// Where the ARP packet lies.
        layout: Layout,
    },
    /// Pass it.
    Pass {
        /// The counters' row.
        slot: u32,
        /// Why.
        reason: Passed,
    },
    /// Drop it.
    Drop {
        /// The counters' row.
        slot: u32,
        /// Why.
        reason: Dropped,
    },
    /// Drop it, and tell user space who claims what.
    Conflict {
        /// The counters' row.
        slot: u32,
        /// The shared IP.
        vip: VipKey,
        /// Who claims it.
        claimant: Mac,
        /// By which ARP operation.
        operation: u16,
    },
}

/// Why a frame passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// For a shared IP whose gate is open.
    Delivered,
    /// The owner's word about its shared IP, or anybody's while our lease is past.
    Claim,
    /// Speaks for a shared IP whose gate is open.
    Sent,
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// For a shared IP whose gate is closed.
    Stale,
    /// Our own, come back.
    Looped,
    /// A member's word about a shared IP that it does not own.
    Claim,
    /// On an interface that does not carry the shared IP.
    Guarded,
    /// Would speak for a shared IP whose gate is closed.
    Fenced,
}

/// A frame that comes in by an interface that carries shared IPs. Shared IPs of other interfaces
/// are left to [`guard`].
#[inline(always)]
pub fn ingress(frame: &(impl Reader + ?Sized), around: &impl Surroundings) -> Verdict {
    match parse(frame) {
        Parsed::Arp(packet) => ingress_arp(frame, &packet, around),
        Parsed::Ipv4 { destination, .. } => {
            let Some(gate) = carried_gate(destination, around) else {
                return Verdict::NotOurs;
            };
            if !is_for_us(frame, &gate) {
                return Verdict::NotOurs;
            }
            if is_open(&gate, around) {
                Verdict::Pass {
                    slot: gate.slot,
                    reason: Passed::Delivered,
                }
            } else {
                Verdict::Drop {
                    slot: gate.slot,
                    reason: Dropped::Stale,
                }
            }
        }
        Parsed::Other => Verdict::NotOurs,
    }
}

/// A frame that comes in by an interface that has an address of its own, judged for the shared IPs
/// that other interfaces carry: Linux would answer for them here too. `for_us` says whether the
/// frame's destination MAC is this interface's or a group's.
///
/// A packet to a shared IP that another machine owns is on its way there, from a container for
/// example: it is the host's to forward.
#[inline(always)]
pub fn guard(frame: &(impl Reader + ?Sized), for_us: bool, around: &impl Surroundings) -> Verdict {
    if !for_us {
        return Verdict::NotOurs;
    }
    match parse(frame) {
        Parsed::Arp(packet) => {
            if let Some(gate) = foreign_gate(packet.sender_ip, around) {
                return judge_claim(&packet, &gate, around);
            }
            match foreign_gate(packet.target_ip, around) {
                Some(gate) if packet.operation == arp::REQUEST => Verdict::Drop {
                    slot: gate.slot,
                    reason: Dropped::Guarded,
                },
                _ => Verdict::NotOurs,
            }
        }
        Parsed::Ipv4 { destination, .. } => match foreign_gate(destination, around) {
            Some(gate) if is_open(&gate, around) => Verdict::Pass {
                slot: gate.slot,
                reason: Passed::Delivered,
            },
            Some(gate) if !is_owned_elsewhere(&gate) => Verdict::Drop {
                slot: gate.slot,
                reason: Dropped::Stale,
            },
            Some(_) | None => Verdict::NotOurs,
        },
        Parsed::Other => Verdict::NotOurs,
    }
}

/// A frame that goes out by any interface that has one of our programs: what speaks for a shared
/// IP does so only through an open gate, and by ARP only where it is carried.
///
/// When a packet from a shared IP leaves by another interface, Linux asks for the next hop there in
/// the shared IP's name, which would tell the network that it is to be found at that interface. The
/// question goes out as a probe, in nobody's name (RFC 5227 §2.1.1): it is answered all the same.
///
/// What another machine sends from the shared IP that it owns is forwarded by other interfaces.
#[inline(always)]
pub fn egress(frame: &(impl Reader + ?Sized), around: &impl Surroundings) -> Verdict {
    let (speaker, packet) = match parse(frame) {
        Parsed::Arp(packet) => (packet.sender_ip, Some(packet)),
        Parsed::Ipv4 { source, .. } => (source, None),
        Parsed::Other => return Verdict::NotOurs,
    };
    let Some(gate) = around.gate(&VipKey::v4(speaker)) else {
        return Verdict::NotOurs;
    };
    let slot = gate.slot;
    let is_open = is_open(&gate, around);
    match packet {
        Some(packet) if gate.ifindex != around.ifindex() => {
            let asks = packet.operation == arp::REQUEST && packet.target_ip != packet.sender_ip;
            if asks && is_open {
                Verdict::Anonymise {
                    slot,
                    layout: packet.layout,
                }
            } else {
                Verdict::Drop {
                    slot,
                    reason: Dropped::Guarded,
                }
            }
        }
        _ if is_open => Verdict::Pass {
            slot,
            reason: Passed::Sent,
        },
        None if gate.ifindex != around.ifindex()
            && around.is_forwarded()
            && is_owned_elsewhere(&gate) =>
        {
            Verdict::NotOurs
        }
        _ => Verdict::Drop {
            slot,
            reason: Dropped::Fenced,
        },
    }
}

#[inline(always)]
fn ingress_arp(
    frame: &(impl Reader + ?Sized),
    packet: &Arp,
    around: &impl Surroundings,
) -> Verdict {
    // What it claims goes before what it asks: a gratuitous request does both.
    if let Some(gate) = carried_gate(packet.sender_ip, around) {
        if !is_for_us(frame, &gate) {
            return Verdict::NotOurs;
        }
        return judge_claim(packet, &gate, around);
    }
    if packet.operation != arp::REQUEST {
        return Verdict::NotOurs;
    }
    let Some(gate) = carried_gate(packet.target_ip, around) else {
        return Verdict::NotOurs;
    };
    if !is_for_us(frame, &gate) {
        return Verdict::NotOurs;
    }
    if is_open(&gate, around) {
        Verdict::Answer {
            slot: gate.slot,
            layout: packet.layout,
            mac: gate.mac,
        }
    } else {
        Verdict::Drop {
            slot: gate.slot,
            reason: Dropped::Stale,
        }
    }
}

/// Somebody says that a shared IP is at its MAC. Members know better, from etcd, for as long as
/// their lease is good.
#[inline(always)]
fn judge_claim(packet: &Arp, gate: &Gate, around: &impl Surroundings) -> Verdict {
    let slot = gate.slot;
    let claimant = packet.sender_mac;
    if claimant == gate.mac {
        return Verdict::Drop {
            slot,
            reason: Dropped::Looped,
        };
    }
    let now_ns = around.now_ns();
    let lease_deadline_ns = around.lease_deadline_ns();
    if !gate.is_open(lease_deadline_ns, now_ns)
        && (claimant == gate.owner_mac || now_ns >= lease_deadline_ns)
    {
        return Verdict::Pass {
            slot,
            reason: Passed::Claim,
        };
    }
    if around.is_member(claimant) {
        return Verdict::Drop {
            slot,
            reason: Dropped::Claim,
        };
    }
    let vip = VipKey::v4(packet.sender_ip);
    Verdict::Conflict {
        slot,
        vip,
        claimant,
        operation: packet.operation,
    }
}

#[inline(always)]
fn carried_gate(ip: [u8; 4], around: &impl Surroundings) -> Option<Gate> {
    around
        .gate(&VipKey::v4(ip))
        .filter(|gate| gate.ifindex == around.ifindex())
}

#[inline(always)]
fn foreign_gate(ip: [u8; 4], around: &impl Surroundings) -> Option<Gate> {
    around
        .gate(&VipKey::v4(ip))
        .filter(|gate| gate.ifindex != around.ifindex())
}

/// As etcd says. This node's address is off then: fence first.
#[inline(always)]
fn is_owned_elsewhere(gate: &Gate) -> bool {
    gate.owner_mac != Mac::default() && gate.owner_mac != gate.mac
}

/// A unicast frame to another MAC is seen by promiscuous NICs and is nobody's business here.
#[inline(always)]
fn is_for_us(frame: &(impl Reader + ?Sized), gate: &Gate) -> bool {
    let destination: Option<Mac> = frame.read(ETH_DESTINATION);
    destination.is_some_and(|mac| mac == gate.mac || is_group(mac))
}

#[inline(always)]
fn is_open(gate: &Gate, around: &impl Surroundings) -> bool {
    gate.is_open(around.lease_deadline_ns(), around.now_ns())
}
