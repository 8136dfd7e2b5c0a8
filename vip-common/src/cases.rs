//! Frames, and what must become of them: one table for the host and for the kernel.
//!
//! The stage is always the same: this node has the shared IP [`VIP`] on the interface
//! [`CARRIER`], at the MAC [`OUR_MAC`]; another interface is [`OTHER`].

extern crate alloc;

use alloc::{vec, vec::Vec};

use crate::{
    abi::{Gate, VipKey},
    frame::{Mac, arp},
    verdict::{Dropped, Passed, Surroundings, Verdict},
};

/// The shared IP.
pub const VIP: [u8; 4] = [10, 0, 0, 100];
/// Somebody who asks.
pub const CLIENT: [u8; 4] = [10, 0, 0, 7];
/// An address that is nobody's business here.
pub const STRANGER: [u8; 4] = [10, 0, 0, 8];
/// Our MAC on the carrier.
pub const OUR_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The client's.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 7];
/// The owner's, where we are not that.
pub const OWNER_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// Another member's.
pub const MEMBER_MAC: Mac = [2, 0, 0, 0, 0, 3];
/// Nobody's that etcd knows.
pub const FOREIGN_MAC: Mac = [2, 0, 0, 0, 0, 9];
/// The MAC of the interface that a guard is on: the loopback's, for the same reason as [`CARRIER`].
pub const GUARDED_MAC: Mac = [0; 6];
/// Everybody's.
pub const BROADCAST: Mac = [0xff; 6];
/// The interface that carries the shared IP. 1, for `BPF_PROG_TEST_RUN` runs programs on the
/// loopback interface unless told otherwise.
pub const CARRIER: u32 = 1;
/// Another interface.
pub const OTHER: u32 = 2;
/// The shared IP's row in the counters.
pub const SLOT: u32 = 5;

/// Which of the three functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `verdict::ingress` on the carrier.
    Ingress,
    /// `verdict::guard` on the interface that the gate is not of.
    Guard,
    /// `verdict::egress`.
    Egress,
    /// The same, of a frame that came in elsewhere.
    Forward,
}

/// How this node stands towards the shared IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The gate is open.
    Owner,
    /// The gate is closed, the lease is good, `OWNER_MAC` owns it.
    Follower,
    /// As the follower's, but nobody is known to own it.
    Vacant,
    /// As the owner's, but past the lease's deadline.
    Expired,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Passed and not counted.
    Untouched,
    /// Answered from `OUR_MAC`.
    Answered,
    /// Passed as a probe.
    Anonymised,
    /// Passed and counted.
    Passed(Passed),
    /// Dropped and counted.
    Dropped(Dropped),
    /// Dropped, counted and told.
    Conflict,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Where.
    pub hook: Hook,
    /// The interface that the shared IP is on, seen from a hook on interface [`CARRIER`].
    pub carrier: u32,
    /// How this node stands.
    pub stage: Stage,
    /// What comes or goes.
    pub frame: Vec<u8>,
    /// What must become of it.
    pub expect: Expect,
}

impl Stage {
    /// The shared IP's gate.
    pub fn gate(self, carrier: u32) -> Gate {
        let (deadline_ns, owner_mac) = match self {
            Self::Owner | Self::Expired => (u64::MAX, OUR_MAC),
            Self::Follower => (0, OWNER_MAC),
            Self::Vacant => (0, [0; 6]),
        };
        Gate {
            deadline_ns,
            epoch: 42,
            ifindex: carrier,
            slot: SLOT,
            mac: OUR_MAC,
            owner_mac,
            ..Gate::default()
        }
    }

    /// Whether the lease's deadline lies ahead.
    pub fn has_lease(self) -> bool {
        self != Self::Expired
    }
}

/// The maps and the clock of a row, for the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// How the node stands.
    pub stage: Stage,
    /// The interface that the shared IP is on.
    pub carrier: u32,
    /// Whether the frame came in elsewhere.
    pub forwarded: bool,
}

impl Host {
    /// What a case is judged in.
    pub fn of(case: &Case) -> Self {
        Self {
            stage: case.stage,
            carrier: case.carrier,
            forwarded: case.hook == Hook::Forward,
        }
    }
}

impl Surroundings for Host {
    fn gate(&self, vip: &VipKey) -> Option<Gate> {
        (*vip == VipKey::v4(VIP)).then(|| self.stage.gate(self.carrier))
    }

    fn lease_deadline_ns(&self) -> u64 {
        if self.stage.has_lease() { 2_000 } else { 1_000 }
    }

    fn now_ns(&self) -> u64 {
        1_000
    }

    fn is_member(&self, mac: Mac) -> bool {
        mac == MEMBER_MAC || mac == OUR_MAC || mac == OWNER_MAC
    }

    fn ifindex(&self) -> u32 {
        CARRIER
    }

    fn is_forwarded(&self) -> bool {
        self.forwarded
    }
}

impl Expect {
    /// Whether a verdict is what was expected.
    pub fn is_met_by(self, verdict: Verdict) -> bool {
        match (self, verdict) {
            (Self::Untouched, Verdict::NotOurs) => true,
            (Self::Answered, Verdict::Answer { slot, mac, .. }) => slot == SLOT && mac == OUR_MAC,
            (Self::Anonymised, Verdict::Anonymise { slot, .. }) => slot == SLOT,
            (Self::Passed(want), Verdict::Pass { slot, reason }) => slot == SLOT && reason == want,
            (Self::Dropped(want), Verdict::Drop { slot, reason }) => slot == SLOT && reason == want,
            (Self::Conflict, Verdict::Conflict { slot, vip, .. }) => {
                slot == SLOT && vip == VipKey::v4(VIP)
            }
            _ => false,
        }
    }
}

/// An ARP frame, padded to the least length of Ethernet.
pub fn arp_frame(
    to: Mac,
    operation: u16,
    sender: (Mac, [u8; 4]),
    target: (Mac, [u8; 4]),
) -> Vec<u8> {
    let mut frame = ethernet(to, sender.0, 0x0806);
    frame.extend(arp::HEAD_IPV4_OVER_ETHERNET);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0);
    frame.extend(sender.1);
    frame.extend(target.0);
    frame.extend(target.1);
    frame.resize(60, 0);
    frame
}

/// An IPv4 frame with an empty UDP datagram.
pub fn ipv4_frame(to: Mac, from: Mac, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet(to, from, 0x0800);
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend([0, 7, 0, 7, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// The frame with a tag of VLAN `vid`.
pub fn tagged(frame: &[u8], vid: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(0x8100_u16.to_be_bytes());
    tagged.extend(vid.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// The answer to [`arp_frame`]'s request of the client.
pub fn expected_answer(request: &[u8]) -> Vec<u8> {
    let arp_at = request.len() - (60 - 14);
    let asker_ip = [28, 29, 30, 31].map(|at| request[at + arp_at - 14]);
    let mut answer = arp_frame(
        CLIENT_MAC,
        arp::REPLY,
        (OUR_MAC, VIP),
        (CLIENT_MAC, asker_ip),
    );
    if arp_at > 14 {
        answer = tagged(&answer, u16::from_be_bytes([request[14], request[15]]));
    }
    answer
}

/// An ARP request, asked in nobody's name.
pub fn expected_probe(request: &[u8]) -> Vec<u8> {
    let mut probe = request.to_vec();
    let arp_at = request.len() - (60 - 14);
    probe[arp_at + arp::SENDER_IP..arp_at + arp::TARGET_MAC].fill(0);
    probe
}

/// The table.
pub fn table() -> Vec<Case> {
    let mut rows = Vec::new();
    ingress_rows(&mut rows);
    guard_rows(&mut rows);
    egress_rows(&mut rows);
    rows
}

fn ingress_rows(rows: &mut Vec<Case>) {
    use Expect::{Answered, Conflict, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner};
    let mut row = |name, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Ingress,
            carrier: CARRIER,
            stage,
            frame,
            expect,
        });
    };
    let ask = |to| arp_frame(to, arp::REQUEST, (CLIENT_MAC, CLIENT), ([0; 6], VIP));
    let probe = || arp_frame(BROADCAST, arp::REQUEST, (CLIENT_MAC, [0; 4]), ([0; 6], VIP));
    let claim = |mac, operation| arp_frame(BROADCAST, operation, (mac, VIP), ([0; 6], VIP));
    let packet = |to| ipv4_frame(to, CLIENT_MAC, CLIENT, VIP);

    row(
        "the owner answers a broadcast request",
        Owner,
        ask(BROADCAST),
        Answered,
    );
    row(
        "the owner answers a unicast request",
        Owner,
        ask(OUR_MAC),
        Answered,
    );
    row("the owner answers a probe", Owner, probe(), Answered);
    row(
        "a request of VLAN 0 is an untagged one",
        Owner,
        tagged(&ask(BROADCAST), 0),
        Answered,
    );
    row(
        "a priority without a VLAN is untagged too",
        Owner,
        tagged(&ask(BROADCAST), 0xe000),
        Answered,
    );
    row(
        "a request of VLAN 5 is of another network",
        Owner,
        tagged(&ask(BROADCAST), 5),
        Untouched,
    );
    row(
        "a request to another machine's MAC is not for us",
        Owner,
        ask(FOREIGN_MAC),
        Untouched,
    );
    row(
        "a follower drops a request",
        Follower,
        ask(BROADCAST),
        Drops(Dropped::Stale),
    );
    row(
        "a follower drops a probe",
        Follower,
        probe(),
        Drops(Dropped::Stale),
    );
    row(
        "past its deadline an owner drops a request",
        Expired,
        ask(BROADCAST),
        Drops(Dropped::Stale),
    );

    row(
        "the owner gets packets",
        Owner,
        packet(OUR_MAC),
        Passes(Passed::Delivered),
    );
    row(
        "the owner gets broadcasts",
        Owner,
        packet(BROADCAST),
        Passes(Passed::Delivered),
    );
    row(
        "packets to another MAC are not for us",
        Follower,
        packet(FOREIGN_MAC),
        Untouched,
    );
    row(
        "a follower drops packets",
        Follower,
        packet(OUR_MAC),
        Drops(Dropped::Stale),
    );
    row(
        "a follower drops packets of VLAN 0",
        Follower,
        tagged(&packet(OUR_MAC), 0),
        Drops(Dropped::Stale),
    );
    row(
        "packets of VLAN 5 are of another network",
        Follower,
        tagged(&packet(OUR_MAC), 5),
        Untouched,
    );
    row(
        "past its deadline an owner drops packets",
        Expired,
        packet(OUR_MAC),
        Drops(Dropped::Stale),
    );

    for operation in [arp::REQUEST, arp::REPLY] {
        row(
            "a stranger's claim is a conflict to the owner",
            Owner,
            claim(FOREIGN_MAC, operation),
            Conflict,
        );
        row(
            "a member's claim is not heard by the owner",
            Owner,
            claim(MEMBER_MAC, operation),
            Drops(Dropped::Claim),
        );
        row(
            "our own claim come back is dropped",
            Owner,
            claim(OUR_MAC, operation),
            Drops(Dropped::Looped),
        );
        row(
            "a follower hears its owner",
            Follower,
            claim(OWNER_MAC, operation),
            Passes(Passed::Claim),
        );
        row(
            "a follower does not hear a member that is not the owner",
            Follower,
            claim(MEMBER_MAC, operation),
            Drops(Dropped::Claim),
        );
        row(
            "a stranger's claim is a conflict to a follower",
            Follower,
            claim(FOREIGN_MAC, operation),
            Conflict,
        );
        row(
            "without a lease the wire is believed",
            Expired,
            claim(FOREIGN_MAC, operation),
            Passes(Passed::Claim),
        );
    }
    row(
        "a reply about the VIP to somebody else's question is a claim too",
        Owner,
        arp_frame(OUR_MAC, arp::REPLY, (FOREIGN_MAC, VIP), (OUR_MAC, STRANGER)),
        Conflict,
    );
    for stage in [Owner, Follower] {
        row(
            "a claim that is told another machine is not for us",
            stage,
            arp_frame(
                MEMBER_MAC,
                arp::REPLY,
                (FOREIGN_MAC, VIP),
                (MEMBER_MAC, STRANGER),
            ),
            Untouched,
        );
    }
    row(
        "a reply to the VIP that claims nothing of it is not ours",
        Owner,
        arp_frame(OUR_MAC, arp::REPLY, (CLIENT_MAC, CLIENT), (OUR_MAC, VIP)),
        Untouched,
    );

    row(
        "other addresses' ARP is untouched",
        Follower,
        arp_frame(
            BROADCAST,
            arp::REQUEST,
            (CLIENT_MAC, CLIENT),
            ([0; 6], STRANGER),
        ),
        Untouched,
    );
    row(
        "other addresses' packets are untouched",
        Follower,
        ipv4_frame(OUR_MAC, CLIENT_MAC, CLIENT, STRANGER),
        Untouched,
    );
    row(
        "packets from the VIP are not ours to judge on ingress",
        Follower,
        ipv4_frame(OUR_MAC, OWNER_MAC, VIP, STRANGER),
        Untouched,
    );

    let spoilt = |at: usize, byte| {
        let mut frame = ask(BROADCAST);
        frame[at] = byte;
        frame
    };
    row(
        "ARP of another hardware type is untouched",
        Owner,
        spoilt(15, 6),
        Untouched,
    );
    row(
        "ARP of another protocol is untouched",
        Owner,
        spoilt(16, 0x86),
        Untouched,
    );
    row(
        "ARP with another address length is untouched",
        Owner,
        spoilt(18, 8),
        Untouched,
    );
    let ip = |version_and_length| {
        let mut frame = packet(OUR_MAC);
        frame[14] = version_and_length;
        frame
    };
    row(
        "IP of another version is untouched",
        Follower,
        ip(0x65),
        Untouched,
    );
    row(
        "IP with a header too short is untouched",
        Follower,
        ip(0x44),
        Untouched,
    );
    row(
        "IP with options is IP",
        Follower,
        ip(0x4f),
        Drops(Dropped::Stale),
    );
    for length in 14..42 {
        row(
            "ARP that is cut short is untouched",
            Owner,
            ask(BROADCAST)[..length].to_vec(),
            Untouched,
        );
    }
    for length in 14..34 {
        row(
            "IP that is cut short is untouched",
            Follower,
            packet(OUR_MAC)[..length].to_vec(),
            Untouched,
        );
    }
    row(
        "a follower needs no padding to know a request",
        Follower,
        ask(BROADCAST)[..42].to_vec(),
        Drops(Dropped::Stale),
    );

    rows.push(Case {
        name: "a VIP of another interface is left to the guard",
        hook: Hook::Ingress,
        carrier: OTHER,
        stage: Follower,
        frame: packet(OUR_MAC),
        expect: Untouched,
    });
}

fn guard_rows(rows: &mut Vec<Case>) {
    use Expect::{Conflict, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner, Vacant};
    let mut row = |name, carrier, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Guard,
            carrier,
            stage,
            frame,
            expect,
        });
    };
    let ask = arp_frame(BROADCAST, arp::REQUEST, (CLIENT_MAC, CLIENT), ([0; 6], VIP));
    let packet = ipv4_frame(GUARDED_MAC, CLIENT_MAC, CLIENT, VIP);
    let claim = |mac| arp_frame(BROADCAST, arp::REQUEST, (mac, VIP), ([0; 6], VIP));
    for stage in [Owner, Follower] {
        row(
            "no other interface hears a request",
            OTHER,
            stage,
            ask.clone(),
            Drops(Dropped::Guarded),
        );
        row(
            "a VIP of this interface is left to XDP",
            CARRIER,
            stage,
            ask.clone(),
            Untouched,
        );
        row(
            "a stranger's claim is a conflict here too",
            OTHER,
            stage,
            claim(FOREIGN_MAC),
            Conflict,
        );
        row(
            "our own announcement, heard by the other NIC, is dropped",
            OTHER,
            stage,
            claim(OUR_MAC),
            Drops(Dropped::Looped),
        );
    }
    for stage in [Owner, Follower] {
        for (name, frame) in [
            (
                "a packet to another machine's MAC is not for us",
                ipv4_frame(FOREIGN_MAC, CLIENT_MAC, CLIENT, VIP),
            ),
            (
                "nor is a request to it",
                arp_frame(
                    FOREIGN_MAC,
                    arp::REQUEST,
                    (CLIENT_MAC, CLIENT),
                    ([0; 6], VIP),
                ),
            ),
            (
                "nor a claim that it is told",
                arp_frame(
                    FOREIGN_MAC,
                    arp::REPLY,
                    (MEMBER_MAC, VIP),
                    (FOREIGN_MAC, CLIENT),
                ),
            ),
        ] {
            row(name, OTHER, stage, frame, Untouched);
        }
    }
    row(
        "a routed packet may come in anywhere",
        OTHER,
        Owner,
        packet.clone(),
        Passes(Passed::Delivered),
    );
    for stage in [Expired, Vacant] {
        row(
            "a closed gate is closed everywhere",
            OTHER,
            stage,
            packet.clone(),
            Drops(Dropped::Stale),
        );
    }
    row(
        "what is another machine's is forwarded to it",
        OTHER,
        Follower,
        packet,
        Untouched,
    );
    let other = ipv4_frame(GUARDED_MAC, CLIENT_MAC, CLIENT, STRANGER);
    row(
        "other addresses are untouched",
        OTHER,
        Follower,
        other,
        Untouched,
    );
}

fn egress_rows(rows: &mut Vec<Case>) {
    use Expect::{Anonymised, Dropped as Drops, Passed as Passes, Untouched};
    use Stage::{Expired, Follower, Owner, Vacant};
    let mut row = |name, carrier, stage, frame, expect| {
        rows.push(Case {
            name,
            hook: Hook::Egress,
            carrier,
            stage,
            frame,
            expect,
        });
    };
    let announce = arp_frame(BROADCAST, arp::REQUEST, (OUR_MAC, VIP), ([0; 6], VIP));
    let packet = ipv4_frame(CLIENT_MAC, OUR_MAC, VIP, CLIENT);
    row(
        "the owner announces",
        CARRIER,
        Owner,
        announce.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the owner sends",
        CARRIER,
        Owner,
        packet.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the owner may send by another way",
        OTHER,
        Owner,
        packet.clone(),
        Passes(Passed::Sent),
    );
    row(
        "the VIP is announced only where it is",
        OTHER,
        Owner,
        announce.clone(),
        Drops(Dropped::Guarded),
    );
    let ask = arp_frame(BROADCAST, arp::REQUEST, (OUR_MAC, VIP), ([0; 6], CLIENT));
    row(
        "the owner asks for its neighbours",
        CARRIER,
        Owner,
        ask.clone(),
        Passes(Passed::Sent),
    );
    row(
        "by another way it asks in nobody's name",
        OTHER,
        Owner,
        ask.clone(),
        Anonymised,
    );
    row(
        "a tag of VLAN 0 changes nothing of that",
        OTHER,
        Owner,
        tagged(&ask, 0),
        Anonymised,
    );
    row(
        "who does not own it does not ask",
        OTHER,
        Follower,
        ask.clone(),
        Drops(Dropped::Guarded),
    );
    for stage in [Follower, Expired] {
        row(
            "nobody else announces",
            CARRIER,
            stage,
            announce.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "nobody else sends",
            CARRIER,
            stage,
            packet.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "nor by another way",
            OTHER,
            stage,
            packet.clone(),
            Drops(Dropped::Fenced),
        );
        row(
            "a tag of VLAN 0 is no way around",
            CARRIER,
            stage,
            tagged(&announce, 0),
            Drops(Dropped::Fenced),
        );
    }
    let own = ipv4_frame(CLIENT_MAC, OUR_MAC, STRANGER, VIP);
    row(
        "the host's own packets are untouched",
        CARRIER,
        Follower,
        own,
        Untouched,
    );
    for (carrier, stage, expect) in [
        (OTHER, Follower, Untouched),
        (OTHER, Owner, Passes(Passed::Sent)),
        (OTHER, Expired, Drops(Dropped::Fenced)),
        (OTHER, Vacant, Drops(Dropped::Fenced)),
        (CARRIER, Follower, Drops(Dropped::Fenced)),
    ] {
        rows.push(Case {
            name: "what its owner sends is forwarded by other interfaces",
            hook: Hook::Forward,
            carrier,
            stage,
            frame: packet.clone(),
            expect,
        });
    }
    rows.push(Case {
        name: "but no ARP",
        hook: Hook::Forward,
        carrier: OTHER,
        stage: Follower,
        frame: announce.clone(),
        expect: Drops(Dropped::Guarded),
    });
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = vec![];
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame
}
