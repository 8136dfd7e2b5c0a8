//! The table of `vip_common::cases` in the kernel, through `BPF_PROG_TEST_RUN`: verdict, counter and
//! frame are what the host says.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use vip_common::{
    abi::{Counters, Gate, Lease, MemberMac, VipKey, names},
    cases::{self, Case, Expect, Hook},
    verdict::{Dropped, Passed},
};

/// `enum xdp_action` of `linux/bpf.h`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
/// `TCX_NEXT` and `TCX_DROP`.
const TC_NEXT: u32 = u32::MAX;
const TC_DROP: u32 = 2;
/// `TCX_REDIRECT`.
const TC_REDIRECT: u32 = 7;
/// Those of Ethernet and IPv6.
const WHOLE_HEADERS: usize = 14 + 40;

/// `struct __sk_buff` of `linux/bpf.h`, and where it has its `ingress_ifindex`.
const SK_BUFF_BYTES: usize = 192;
const INGRESS_IFINDEX: usize = 36;

struct Kernel {
    programs: Ebpf,
    lease: Array<MapData, Lease>,
    gates: HashMap<MapData, VipKey, Gate>,
    counters: PerCpuArray<MapData, Counters>,
}

/// What a run came to.
struct Ran {
    action: u32,
    frame: Vec<u8>,
    counted: Counters,
}

impl Kernel {
    fn load() -> Self {
        let object = vip_agent::dataplane::object().expect("tests are built with the eBPF object");
        let mut programs = EbpfLoader::new()
            .load(object)
            .expect("the kernel takes the object");
        let program: &mut Xdp = programs
            .program_mut(names::XDP)
            .expect("it is in the object")
            .try_into()
            .expect("it is an XDP program");
        program.load().expect("the verifier takes it");
        for name in [names::INGRESS, names::EGRESS, names::GUARD] {
            let program: &mut SchedClassifier = programs
                .program_mut(name)
                .expect("it is in the object")
                .try_into()
                .expect("it is a classifier");
            program.load().expect("the verifier takes it");
        }
        let mut take = |name| programs.take_map(name).expect("it is in the object");
        let mut members: HashMap<_, MemberMac, u8> =
            take(names::MEMBERS).try_into().expect("a hash map");
        for mac in [cases::OUR_MAC, cases::OWNER_MAC, cases::MEMBER_MAC] {
            members
                .insert(MemberMac::from(mac), 1, 0)
                .expect("there is room");
        }
        Self {
            lease: take(names::LEASE).try_into().expect("an array"),
            gates: take(names::GATES).try_into().expect("a hash map"),
            counters: take(names::COUNTERS).try_into().expect("a per-CPU array"),
            programs,
        }
    }

    fn set_stage(&mut self, case: &Case) {
        let deadline_ns = if case.stage.has_lease() { u64::MAX } else { 1 };
        self.lease
            .set(0, Lease { deadline_ns }, 0)
            .expect("entry 0 is there");
        let gate = case.stage.gate(case.carrier);
        for vip in cases::vips() {
            self.gates.insert(vip, gate, 0).expect("there is room");
        }
        let cpus = self
            .counters
            .get(&cases::SLOT, 0)
            .expect("the row is there")
            .len();
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus]).expect("one per CPU");
        self.counters
            .set(cases::SLOT, zero, 0)
            .expect("the row is there");
    }

    fn run(&mut self, case: &Case, name: &str) -> Ran {
        self.set_stage(case);
        let mut frame = vec![0; case.frame.len() + 64];
        let mut came_in_by = [0; SK_BUFF_BYTES];
        came_in_by[INGRESS_IFINDEX..][..4].copy_from_slice(&cases::OTHER.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&case.frame),
            data_out: Some(&mut frame),
            ctx_in: (case.hook == Hook::Forward).then_some(came_in_by.as_slice()),
            ..TestRunOptions::default()
        };
        let program = self.programs.program(name).expect("it is in the object");
        let ran = if name == names::XDP {
            let program: &Xdp = program.try_into().expect("an XDP program");
            program.test_run(options)
        } else {
            let program: &SchedClassifier = program.try_into().expect("a classifier");
            program.test_run(options)
        }
        .expect("the kernel runs it");
        frame.truncate(usize::try_from(ran.data_size_out).expect("it is short"));
        let rows = self
            .counters
            .get(&cases::SLOT, 0)
            .expect("the row is there");
        let counted = rows.iter().fold(Counters::default(), Counters::plus);
        Ran {
            action: ran.return_value,
            frame,
            counted,
        }
    }
}

#[test]
fn the_kernel_says_what_the_host_says() {
    if !may_use_bpf() {
        return;
    }
    let mut kernel = Kernel::load();
    for case in cases::table() {
        for name in programs_for(&case) {
            let ran = kernel.run(&case, name);
            let of_xdp = *name == names::XDP;
            let (passes, drops, answers) = if of_xdp {
                (XDP_PASS, XDP_DROP, XDP_TX)
            } else {
                (TC_NEXT, TC_DROP, TC_REDIRECT)
            };
            let (action, frame) = match case.expect {
                Expect::Untouched | Expect::Passed(_) => (passes, case.frame.clone()),
                Expect::Dropped(_) | Expect::Conflict => (drops, case.frame.clone()),
                Expect::Anonymised => (passes, cases::expected_probe(&case.frame)),
                Expect::Answered => (answers, cases::expected_answer(&case)),
            };
            assert_eq!(ran.action, action, "{name}: {}: {case:?}", case.name);
            assert_eq!(ran.frame, frame, "{name}: {}", case.name);
            let counted = Counters {
                last_event_ns: 0,
                ..ran.counted
            };
            let expected = expected_count(case.expect);
            assert_eq!(counted, expected, "{name}: {}", case.name);
        }
    }
}

#[test]
fn a_flood_of_conflicts_is_told_once_and_counted_whole() {
    if !may_use_bpf() {
        return;
    }
    let mut kernel = Kernel::load();
    let case = cases::table()
        .into_iter()
        .find(|case| case.expect == Expect::Conflict && case.hook == Hook::Ingress)
        .expect("the table has conflicts");
    let events = kernel
        .programs
        .take_map(names::EVENTS)
        .expect("it is in the object");
    let mut events = aya::maps::RingBuf::try_from(events).expect("a ring buffer");
    kernel.set_stage(&case);
    let program: &Xdp = kernel
        .programs
        .program(names::XDP)
        .expect("it is in the object")
        .try_into()
        .expect("an XDP program");
    let options = TestRunOptions {
        data_in: Some(&case.frame),
        repeat: 1000,
        ..TestRunOptions::default()
    };
    program.test_run(options).expect("the kernel runs it");
    let mut told = 0;
    while events.next().is_some() {
        told += 1;
    }
    let rows = kernel
        .counters
        .get(&cases::SLOT, 0)
        .expect("the row is there");
    let counted = rows.iter().fold(Counters::default(), Counters::plus);
    assert_eq!(counted.conflicts, 1000);
    // Once a second for each CPU that the run may have been moved to.
    assert!((1..=rows.len()).contains(&told), "{told} events");
}

/// All that judge a frame of that hook.
fn programs_for(case: &Case) -> &'static [&'static str] {
    match case.hook {
        // The kernel refuses to run a classifier on a packet without a whole IP header.
        Hook::Ingress if case.frame.len() < WHOLE_HEADERS => &[names::XDP],
        Hook::Ingress => &[names::XDP, names::INGRESS],
        Hook::Guard => &[names::GUARD],
        Hook::Egress | Hook::Forward => &[names::EGRESS],
    }
}

fn expected_count(expect: Expect) -> Counters {
    let mut counters = Counters::default();
    let counter = match expect {
        Expect::Untouched => return counters,
        Expect::Answered => &mut counters.answered,
        Expect::Conflict => &mut counters.conflicts,
        Expect::Anonymised => &mut counters.guarded,
        Expect::Passed(Passed::Delivered) => &mut counters.delivered,
        Expect::Passed(Passed::Claim) => &mut counters.claims_passed,
        Expect::Passed(Passed::Sent) => &mut counters.sent,
        Expect::Dropped(Dropped::Stale) => &mut counters.stale,
        Expect::Dropped(Dropped::Looped) => &mut counters.looped,
        Expect::Dropped(Dropped::Claim) => &mut counters.claims_dropped,
        Expect::Dropped(Dropped::Guarded) => &mut counters.guarded,
        Expect::Dropped(Dropped::Fenced) => &mut counters.fenced,
    };
    *counter = 1;
    counters
}

/// Says why where it is not, and is a failure in CI.
fn may_use_bpf() -> bool {
    if nix::unistd::geteuid().is_root() && vip_agent::dataplane::object().is_some() {
        return true;
    }
    let why = "skipped: loading eBPF programs needs root and a build with the eBPF object";
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    eprintln!("{why}");
    false
}
