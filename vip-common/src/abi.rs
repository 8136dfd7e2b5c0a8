//! What lies in the maps. Written by the agent, read by the kernel program, and by people through
//! `bpftool map dump`. Native byte order, no implicit padding.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Changes with every change of a type or map in this module, and names the directory in which the
/// maps are pinned, `abi-v2`. A process adopts the maps of its own version, and takes over from those
/// of an older one.
///
/// For that all versions keep to this:
/// - [`names::LEASE`] is an array whose entry 0 begins with the deadline (`CLOCK_BOOTTIME`, one u64),
///   and can be mapped into user space;
/// - [`names::GATES`] is a hash map; its keys are [`VipKey`]s, its values are of 24 to 64 bytes, by
///   eights, and begin as a [`Gate`] does: `deadline_ns`, `epoch`, `ifindex`;
/// - the links are pinned beside that directory, in `links`, under the same names, and their programs
///   are of the same types.
pub const ABI_VERSION: u32 = 2;

/// Shared IPs that one machine can have.
pub const MAX_VIPS: u32 = 4096;

/// MACs of members that can be told apart from strangers'.
pub const MAX_MEMBER_MACS: u32 = 4096;

/// The size of the ring buffer of events, in bytes: a power of two, in whole pages.
pub const EVENTS_BYTES: u32 = 64 * 1024;

/// The words of eight bytes that a [`Gate`] is made of.
pub const GATE_WORDS: usize = 5;

/// A gate's flag: this node forwards IPv6 there, and says so in its advertisements (RFC 4861 §4.4).
pub const GATE_ROUTER: u16 = 1;

/// The time between two events of one shared IP on one CPU.
pub const EVENT_INTERVAL_NS: u64 = 1_000_000_000;

/// The names of maps and programs, in the object and on the bpffs.
pub mod names {
    /// Array of one [`Lease`](super::Lease), mappable into user space.
    pub const LEASE: &str = "LEASE";
    /// Hash from [`VipKey`](super::VipKey) to [`Gate`](super::Gate).
    pub const GATES: &str = "GATES";
    /// Per-CPU array of [`Counters`](super::Counters), by [`Gate::slot`](super::Gate::slot).
    pub const COUNTERS: &str = "COUNTERS";
    /// Hash set of [`MemberMac`](super::MemberMac).
    pub const MEMBERS: &str = "MEMBERS";
    /// Ring buffer of [`Event`](super::Event).
    pub const EVENTS: &str = "EVENTS";
    /// All of them.
    pub const MAPS: [&str; 5] = [LEASE, GATES, COUNTERS, MEMBERS, EVENTS];
    /// XDP, on the ingress of an interface that carries shared IPs.
    pub const XDP: &str = "vip_xdp";
    /// TC, on the egress of such an interface and of guarded ones.
    pub const EGRESS: &str = "vip_egress";
    /// TC, on the ingress of an interface that carries shared IPs and takes no XDP program of ours.
    pub const INGRESS: &str = "vip_ingress";
    /// TC, on the ingress of guarded interfaces.
    pub const GUARD: &str = "vip_guard";
    /// Writes the kernel's boot clock into its input: run by the agent once, never attached.
    pub const CLOCK: &str = "vip_clock";
    /// Changes a gate in place: run by the agent, never attached. Its input is a
    /// [`VipKey`](super::VipKey) and the [`Gate`](super::Gate) that it is to have.
    pub const PUT_GATE: &str = "vip_put_gate";
}

/// A shared IP. IPv4 is mapped into IPv6 (RFC 4291 §2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipKey {
    /// The address, in network byte order.
    pub addr: [u8; 16],
}

/// Until when this node may speak for anything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// `CLOCK_BOOTTIME`. One aligned word: one store shuts or prolongs all gates.
    pub deadline_ns: u64,
}

/// One shared IP's gate. Open while now is before both [`Lease::deadline_ns`] and its own deadline.
///
/// It is made of aligned words of eight bytes. A gate that stands is changed in place, word by word,
/// and a program reads it word by word: it sees each word as it was before or as it is after, never
/// a part of it, but may see old words beside new ones. One that shuts has its deadline stored
/// first, one that opens last. It is put into the map shut, and shut before it is taken out: the
/// kernel gives the memory of an element that was taken out or *replaced* to the next one at once,
/// while a program may still be reading it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// `CLOCK_BOOTTIME`; 0: closed; `u64::MAX`: no limit but the lease's.
    pub deadline_ns: u64,
    /// The owner key's `mod_revision` in etcd.
    pub epoch: u64,
    /// The interface that carries it.
    pub ifindex: u32,
    /// Its row in the counters.
    pub slot: u32,
    /// Our MAC on that interface.
    pub mac: [u8; 6],
    /// [`GATE_ROUTER`], or zero.
    pub flags: u16,
    /// The owner's MAC, as etcd has it; zero while unknown.
    pub owner_mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// What became of one shared IP's frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// ARP requests and Neighbour Solicitations answered.
    pub answered: u64,
    /// Packets for it let through.
    pub delivered: u64,
    /// Frames for it dropped, for its gate was closed.
    pub stale: u64,
    /// Our own frames come back, dropped.
    pub looped: u64,
    /// Claims by a MAC that no member has, dropped.
    pub conflicts: u64,
    /// Claims by a member that does not own it, dropped.
    pub claims_dropped: u64,
    /// Claims by the owner, or heard while our own lease was past, let through.
    pub claims_passed: u64,
    /// Frames stopped, or made to speak for nobody, on an interface that does not carry it.
    pub guarded: u64,
    /// Frames that speak for it, sent.
    pub sent: u64,
    /// Frames that would have spoken for it, dropped, for its gate was closed.
    pub fenced: u64,
    /// When the last event was emitted on this CPU, `CLOCK_BOOTTIME`.
    pub last_event_ns: u64,
}

/// A member's MAC, as a key of eight bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberMac {
    /// The MAC.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// Somebody whom etcd does not know claims a shared IP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The shared IP.
    pub vip: VipKey,
    /// Where it was heard.
    pub ifindex: u32,
    /// How: the ARP operation (1 request, 2 reply), or the ICMPv6 type (135 solicitation, 136
    /// advertisement).
    pub op: u16,
    /// The claimant.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 4],
}

/// How an IPv4 address begins that is mapped into IPv6 (RFC 4291 §2.5.5.2).
const IPV4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

const _: () = {
    assert!(size_of::<VipKey>() == 16);
    assert!(size_of::<Lease>() == 8 && align_of::<Lease>() == 8);
    assert!(size_of::<Gate>() == 8 * GATE_WORDS && align_of::<Gate>() == 8);
    assert!(size_of::<Counters>() == 88);
    assert!(size_of::<MemberMac>() == 8);
    assert!(size_of::<Event>() == 40);
};

impl VipKey {
    /// The shared IP `ip`.
    #[inline(always)]
    pub const fn v4(ip: [u8; 4]) -> Self {
        let [a, b, c, d] = ip;
        Self {
            addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        }
    }

    /// The shared IP `ip`; `None` if that is an IPv4 address in disguise, which no packet has any
    /// business with (RFC 4291 §2.5.5.2) and which is no shared IP's.
    #[inline(always)]
    pub fn v6(ip: [u8; 16]) -> Option<Self> {
        let is_disguised = ip.first_chunk() == Some(&IPV4_MAPPED);
        (!is_disguised).then_some(Self { addr: ip })
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.addr).to_canonical()
    }
}

impl From<Ipv4Addr> for VipKey {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}

impl From<IpAddr> for VipKey {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Self { addr: ip.octets() },
        }
    }
}

impl From<[u8; 6]> for MemberMac {
    #[inline(always)]
    fn from(mac: [u8; 6]) -> Self {
        Self {
            mac,
            reserved: [0; 2],
        }
    }
}

impl Gate {
    /// The gate as it lies in memory.
    #[inline(always)]
    pub fn to_words(self) -> [u64; GATE_WORDS] {
        // SAFETY: `repr(C)` of that size, of integers and bytes alone and without padding.
        unsafe { core::mem::transmute(self) }
    }

    /// The gate that lies in memory so.
    #[inline(always)]
    pub fn from_words(words: [u64; GATE_WORDS]) -> Self {
        // SAFETY: as above; any bytes are a gate.
        unsafe { core::mem::transmute(words) }
    }

    /// Whether advertisements say that this node is a router.
    #[inline(always)]
    pub fn is_router(&self) -> bool {
        self.flags & GATE_ROUTER != 0
    }

    /// Whether it lets frames through at `now_ns`.
    #[inline(always)]
    pub fn is_open(&self, lease_deadline_ns: u64, now_ns: u64) -> bool {
        now_ns < lease_deadline_ns && now_ns < self.deadline_ns
    }
}

impl Counters {
    /// Adds another CPU's row. The time of the last event is the latest.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            answered: self.answered.wrapping_add(other.answered),
            delivered: self.delivered.wrapping_add(other.delivered),
            stale: self.stale.wrapping_add(other.stale),
            looped: self.looped.wrapping_add(other.looped),
            conflicts: self.conflicts.wrapping_add(other.conflicts),
            claims_dropped: self.claims_dropped.wrapping_add(other.claims_dropped),
            claims_passed: self.claims_passed.wrapping_add(other.claims_passed),
            guarded: self.guarded.wrapping_add(other.guarded),
            sent: self.sent.wrapping_add(other.sent),
            fenced: self.fenced.wrapping_add(other.fenced),
            last_event_ns: self.last_event_ns.max(other.last_event_ns),
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{Counters, Event, Gate, Lease, MemberMac, VipKey};

    // SAFETY: `repr(C)`, made of integers and byte arrays alone, and without implicit padding (the
    // sizes are asserted above): any bytes are a value, and all bytes of a value are initialised.
    unsafe impl aya::Pod for VipKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Lease {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Gate {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MemberMac {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
}
