//! The maps, and what the verdicts ask of them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::bpf_ktime_get_boot_ns,
    macros::btf_map,
};
use vip_common::{
    abi::{
        ABI_VERSION, Counters, EVENT_INTERVAL_NS, EVENTS_BYTES, Event, GATE_WORDS, Gate, Lease,
        MAX_MEMBER_MACS, MAX_VIPS, MemberMac, VipKey,
    },
    frame::Mac,
    verdict::Surroundings,
};

#[btf_map]
static LEASE: Array<Lease, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
static GATES: HashMap<VipKey, Gate, { MAX_VIPS as usize }> = HashMap::new();

#[btf_map]
static COUNTERS: PerCpuArray<Counters, { MAX_VIPS as usize }> = PerCpuArray::new();

#[btf_map]
static MEMBERS: HashMap<MemberMac, u8, { MAX_MEMBER_MACS as usize }> = HashMap::new();

#[btf_map]
static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// Whether to log for debugging; a constant to the verifier, which prunes the calls when it is 0.
#[unsafe(no_mangle)]
static LOGGING: Global<u8> = Global::new(0);

/// So that user space can refuse an object of another ABI than its own.
#[unsafe(no_mangle)]
static ABI: Global<u32> = Global::new(ABI_VERSION);

/// The maps, as seen from one interface.
pub struct Maps {
    pub ifindex: u32,
    /// The interface that the frame came in by, 0 if it is the host's own.
    pub came_in_by: u32,
}

impl Surroundings for Maps {
    #[inline(always)]
    fn gate(&self, vip: &VipKey) -> Option<Gate> {
        let gate = GATES.get_ptr(vip)?.cast::<u64>();
        let mut words = [0; GATE_WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            // SAFETY: a `Gate` is so many aligned words, and elements stay mapped while a program
            // runs. Each is read once and whole, for `put_gate` may be changing it.
            *word = unsafe { gate.wrapping_add(at).read_volatile() };
        }
        Some(Gate::from_words(words))
    }

    #[inline(always)]
    fn lease_deadline_ns(&self) -> u64 {
        let Some(lease) = LEASE.get_ptr(0) else {
            return 0;
        };
        // SAFETY: entry 0 of an array of one is there as long as the map is; a `Lease` is one
        // aligned word, which user space stores whole.
        unsafe { lease.cast::<u64>().read_volatile() }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        boot_now_ns()
    }

    #[inline(always)]
    fn is_member(&self, mac: Mac) -> bool {
        MEMBERS.get_ptr(MemberMac::from(mac)).is_some()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        self.came_in_by != 0
    }
}

/// Changes a gate that stands, in place; `None` if there is none.
#[inline(always)]
pub fn put_gate(vip: &VipKey, words: [u64; GATE_WORDS]) -> Option<()> {
    let gate = GATES.get_ptr_mut(vip)?.cast::<u64>();
    let [deadline_ns, rest @ ..] = words;
    // SAFETY: as in `gate`; the agent, which alone runs this, runs one at a time.
    let standing_ns = unsafe { gate.read_volatile() };
    if deadline_ns < standing_ns {
        // SAFETY: as above.
        unsafe { gate.write_volatile(deadline_ns) };
    }
    for (at, word) in rest.into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { gate.wrapping_add(1 + at).write_volatile(word) };
    }
    // SAFETY: as above.
    unsafe { gate.write_volatile(deadline_ns) };
    Some(())
}

/// `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
#[inline(always)]
pub fn boot_now_ns() -> u64 {
    // SAFETY: the helper takes nothing and returns a number.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Counts in this CPU's row of a shared IP.
#[inline(always)]
pub fn count(slot: u32, counter: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(row) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the row is this CPU's own, and nothing else runs on it meanwhile.
        let row = unsafe { &mut *row };
        let counter = counter(row);
        *counter = counter.wrapping_add(1);
    }
}

/// Tells user space of a conflict, at most once in a while: a flood of them must not cost more than
/// dropping it. What was heard where the shared IP is not carried, as on a container's bridge, has to
/// wait twice as long, and keeps nothing waiting that is heard where it is.
#[inline(always)]
pub fn tell(slot: u32, event: &Event) {
    let Some(row) = COUNTERS.get_ptr_mut(slot) else {
        return;
    };
    // SAFETY: as in `count`.
    let row = unsafe { &mut *row };
    let since_ns = event.at_ns.wrapping_sub(row.last_event_ns);
    if since_ns < EVENT_INTERVAL_NS {
        return;
    }
    row.last_event_ns = if is_carried(event) {
        event.at_ns
    } else if since_ns < 2 * EVENT_INTERVAL_NS {
        return;
    } else {
        event.at_ns.saturating_sub(EVENT_INTERVAL_NS)
    };
    // A full buffer loses the event; the counter has it all the same.
    let _ = EVENTS.output(*event, 0);
}

/// Whether it was heard on the interface that carries the shared IP.
#[inline(always)]
fn is_carried(event: &Event) -> bool {
    let heard_by = Maps {
        ifindex: event.ifindex,
        came_in_by: 0,
    };
    let gate = heard_by.gate(&event.vip);
    gate.is_some_and(|gate| gate.ifindex == event.ifindex)
}

/// Whether debugging output is wanted.
#[inline(always)]
pub fn is_logging() -> bool {
    LOGGING.load() != 0
}
