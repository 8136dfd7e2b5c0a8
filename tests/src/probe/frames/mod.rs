//! The probe's frames. An answer must tell which round it belongs to, or a late one could invent a round answered by two, or hide one.
//!
//! Echo requests carry the round in their payload, which comes back untouched. Neighbour look-ups (ARP requests, Neighbour Solicitations) have no field
//! of the sender's own choosing but its addresses, and an answer quotes both. The *hardware* address carries the round here: every round asks from a MAC
//! address of its own (`06:50` and the round's number, 32 bits, so none is used twice). The protocol address would do as well, but each new one would
//! add an entry to the neighbour table of a kernel that answers, and fill it up within seconds. The price is one entry per round in the bridge's
//! table, which ages out after 10 s, and that the client's own stack takes the answers for somebody else's, which is welcome: they don't refresh its
//! neighbour cache.

mod ipv4;
pub mod ipv6;

use std::net::IpAddr;

use pnet::packet::ethernet::{EtherType, EthernetPacket, MutableEthernetPacket};
use pnet::util::MacAddr;

use crate::addresses::Addresses;

const ETHERNET: usize = 14;
const PAYLOAD: usize = 16;
const MAGIC: [u8; 8] = *b"vipprobe";
const ROUND_MAC: [u8; 2] = [0x06, 0x50];

/// Which of a round's questions was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who has it: the broadcast ARP request, or the multicast Neighbour Solicitation.
    LookUp,
    /// The echo request to one node's MAC.
    Echo,
    /// The ordinary request.
    Ordinary,
}

/// An answer, as a frame or message tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was answered.
    pub question: Question,
    /// In which round it was asked.
    pub round: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its own addresses: the source of the echo requests.
    pub addresses: Addresses,
    /// Addresses that nobody has: the sender of the look-ups, so that no neighbour cache learns a round's MAC address for the client.
    pub nobody: Addresses,
}

/// The questions about one shared IP, and how their answers are known again.
pub trait Frames: Send {
    /// The question of one round that goes to all: who has it?
    fn look_up(&self, round: u32) -> Vec<u8>;

    /// An echo request to one node's MAC with the shared IP as destination.
    fn echo_request(&self, round: u32, to: MacAddr) -> Vec<u8>;

    /// The message of an ordinary echo request, for a socket.
    fn ordinary(&self, round: u32) -> Vec<u8>;

    /// Reads an answer out of a received frame. `Err` names one that contradicts itself.
    fn answer(&self, frame: &EthernetPacket<'_>) -> Result<Option<Answer>, String>;

    /// Reads the answer to an ordinary request out of what a socket received.
    fn ordinary_answer(&self, received: &[u8]) -> Option<Answer>;
}

/// The frames for a shared IP, of its family.
pub fn frames(asker: &Asker, vip: IpAddr) -> Box<dyn Frames> {
    let Asker {
        mac,
        addresses,
        nobody,
    } = *asker;
    match vip {
        IpAddr::V4(vip) => Box::new(ipv4::Ipv4 {
            mac,
            address: addresses.v4,
            nobody: nobody.v4,
            vip,
        }),
        IpAddr::V6(vip) => Box::new(ipv6::Ipv6 {
            mac,
            address: addresses.v6,
            nobody: nobody.v6,
            vip,
        }),
    }
}

/// What an echo request says of itself.
fn payload(question: Question, round: u32) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&MAGIC);
    payload[8] = u8::from(question == Question::Ordinary);
    payload[12..].copy_from_slice(&round.to_be_bytes());
    payload
}

/// What an echo reply says of the request: of what lies behind type, code and checksum, identifier and sequence number are not looked at.
fn echo_answer(behind_checksum: &[u8]) -> Option<Answer> {
    let payload = behind_checksum.get(4..4 + PAYLOAD)?;
    let round = u32::from_be_bytes(payload[12..].try_into().ok()?);
    let question = if payload[8] == 0 {
        Question::Echo
    } else {
        Question::Ordinary
    };
    (payload[..8] == MAGIC).then_some(Answer { question, round })
}

fn sequence_number(round: u32) -> u16 {
    let [_, _, high, low] = round.to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn round_mac(round: u32) -> MacAddr {
    let [c, d, e, f] = round.to_be_bytes();
    MacAddr::new(ROUND_MAC[0], ROUND_MAC[1], c, d, e, f)
}

fn round_of(mac: MacAddr) -> Option<u32> {
    let [a, b, c, d, e, f] = mac.octets();
    ([a, b] == ROUND_MAC).then_some(u32::from_be_bytes([c, d, e, f]))
}

/// A frame around a payload.
pub fn ethernet(from: MacAddr, to: MacAddr, ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + payload.len()];
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut frame) {
        ethernet.set_source(from);
        ethernet.set_destination(to);
        ethernet.set_ethertype(ethertype);
        ethernet.set_payload(payload);
    }
    frame
}
