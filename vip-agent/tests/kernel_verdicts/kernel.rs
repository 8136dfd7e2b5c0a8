//! The programs in the kernel, run through `BPF_PROG_TEST_RUN`, and what is expected of them.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use vip_common::{
    abi::{Counters, Gate, Lease, MemberMac, VipKey, names},
    cases::{self, GUARDED_MAC, Hook, Host, Stage},
    frame::is_group,
    reply,
    verdict::{self, Dropped, Passed, Verdict},
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
/// The kernel runs classifiers on what fits into a page beside its own.
const LONGEST_PACKET: usize = 3_000;

/// `struct __sk_buff` of `linux/bpf.h`, and where it has its `ingress_ifindex`.
const SK_BUFF_BYTES: usize = 192;
const INGRESS_IFINDEX: usize = 36;

pub struct Kernel {
    pub programs: Ebpf,
    lease: Array<MapData, Lease>,
    gates: HashMap<MapData, VipKey, Gate>,
    counters: PerCpuArray<MapData, Counters>,
}

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returns.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What was counted.
    pub counted: Counters,
}

impl Kernel {
    pub fn load() -> Self {
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

    /// Puts the node on its stage: gates, lease, no counts.
    pub fn set_stage(&mut self, stage: Stage, carrier: u32) {
        let deadline_ns = if stage.has_lease() { u64::MAX } else { 1 };
        self.lease
            .set(0, Lease { deadline_ns }, 0)
            .expect("entry 0 is there");
        let gate = stage.gate(carrier);
        for vip in cases::vips() {
            self.gates.insert(vip, gate, 0).expect("there is room");
        }
        let cpus = self.rows().len();
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus]).expect("one per CPU");
        self.counters
            .set(cases::SLOT, zero, 0)
            .expect("the row is there");
    }

    /// Runs a program on a frame.
    pub fn run(&mut self, name: &str, hook: Hook, frame: &[u8]) -> Outcome {
        let mut out = vec![0; frame.len() + 64];
        let mut came_in_by = [0; SK_BUFF_BYTES];
        came_in_by[INGRESS_IFINDEX..][..4].copy_from_slice(&cases::OTHER.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (hook == Hook::Forward).then_some(came_in_by.as_slice()),
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
        out.truncate(usize::try_from(ran.data_size_out).expect("it is short"));
        Outcome {
            action: ran.return_value,
            frame: out,
            counted: Counters {
                last_event_ns: 0,
                ..self.counted()
            },
        }
    }

    /// What was counted since the stage was set.
    pub fn counted(&self) -> Counters {
        self.rows().iter().fold(Counters::default(), Counters::plus)
    }

    /// The counters of each CPU.
    pub fn rows(&self) -> PerCpuValues<Counters> {
        self.counters
            .get(&cases::SLOT, 0)
            .expect("the row is there")
    }
}

/// All programs that judge a frame at a hook, as far as the kernel runs them on it.
pub fn programs_for(hook: Hook, frame: &[u8]) -> &'static [&'static str] {
    match hook {
        // Not on less than a MAC header.
        _ if frame.len() < 14 => &[],
        Hook::Ingress if !is_packet(frame) => &[names::XDP],
        Hook::Ingress => &[names::XDP, names::INGRESS],
        // A classifier not on a packet without a whole IP header.
        _ if !is_packet(frame) => &[],
        Hook::Guard => &[names::GUARD],
        Hook::Egress | Hook::Forward => &[names::EGRESS],
    }
}

/// What a run comes to if the kernel judges as the host does.
pub fn expected(name: &str, hook: Hook, stage: Stage, carrier: u32, frame: &[u8]) -> Outcome {
    let around = Host {
        stage,
        carrier,
        forwarded: hook == Hook::Forward,
    };
    let verdict = match hook {
        Hook::Ingress => verdict::ingress(frame, &around),
        Hook::Guard => {
            let to = frame.first_chunk().copied().expect("it has a header");
            verdict::guard(frame, to == GUARDED_MAC || is_group(to), &around)
        }
        Hook::Egress | Hook::Forward => verdict::egress(frame, &around),
    };
    let of_xdp = name == names::XDP;
    let passes = if of_xdp { XDP_PASS } else { TC_NEXT };
    let drops = if of_xdp { XDP_DROP } else { TC_DROP };
    let mut frame = frame.to_vec();
    let action = match verdict {
        Verdict::NotOurs | Verdict::Pass { .. } => passes,
        Verdict::Drop { .. } | Verdict::Conflict { .. } => drops,
        Verdict::Anonymise { layout, .. } => {
            reply::anonymise_arp(frame.as_mut_slice(), layout).expect("a parsed frame is whole");
            passes
        }
        Verdict::Answer {
            question,
            mac,
            is_router,
            ..
        } => {
            if let Some(length) = reply::answer_len(question) {
                frame.resize(length, 0);
            }
            reply::answer(frame.as_mut_slice(), question, mac, is_router)
                .expect("a parsed frame is whole");
            if of_xdp { XDP_TX } else { TC_REDIRECT }
        }
    };
    Outcome {
        action,
        frame,
        counted: expected_count(verdict),
    }
}

/// Says why where it is not, and is a failure in CI.
pub fn may_use_bpf() -> bool {
    if nix::unistd::geteuid().is_root() && vip_agent::dataplane::object().is_some() {
        return true;
    }
    let why = "skipped: loading eBPF programs needs root and a build with the eBPF object";
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
    eprintln!("{why}");
    false
}

fn is_packet(frame: &[u8]) -> bool {
    (WHOLE_HEADERS..=LONGEST_PACKET).contains(&frame.len())
}

fn expected_count(verdict: Verdict) -> Counters {
    let mut counters = Counters::default();
    let counter = match verdict {
        Verdict::NotOurs => return counters,
        Verdict::Answer { .. } => &mut counters.answered,
        Verdict::Conflict { .. } => &mut counters.conflicts,
        Verdict::Anonymise { .. } => &mut counters.guarded,
        Verdict::Pass { reason, .. } => match reason {
            Passed::Delivered => &mut counters.delivered,
            Passed::Claim => &mut counters.claims_passed,
            Passed::Sent => &mut counters.sent,
        },
        Verdict::Drop { reason, .. } => match reason {
            Dropped::Stale => &mut counters.stale,
            Dropped::Looped => &mut counters.looped,
            Dropped::Claim => &mut counters.claims_dropped,
            Dropped::Guarded => &mut counters.guarded,
            Dropped::Fenced => &mut counters.fenced,
        },
    };
    *counter = 1;
    counters
}
