//! Attaching, adopting, taking over, and leaving nothing.

mod stage;

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use aya::{
    EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode, links::PinnedLink},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stage::{
    INTERFACE, foreign_xdp, has_tcx, ip, open, staged, strip_vlan_tags, times,
    wire::{PATIENCE, Wire},
};
use vip_agent::dataplane::{
    Amiss, Attached, Dataplane, DataplaneError, DataplaneMode, GateSpec, Leftovers, object,
};
use vip_common::{
    abi::{ABI_VERSION, Counters, Gate, VipKey, names},
    cases,
};

/// A version before ours.
const OLDER: u32 = 0;
/// `BPF_F_MMAPABLE` of `linux/bpf.h`.
const MMAPABLE: u32 = 1 << 10;

fn shown() -> String {
    ip(&["-d", "link", "show", INTERFACE])
}

/// What nobody holds any more the kernel detaches a little later.
fn await_no_xdp() {
    let deadline = Instant::now() + PATIENCE;
    while shown().contains("xdp") {
        assert!(Instant::now() < deadline, "{}", shown());
    }
}

fn link_id(bpf_dir: &Path, pin: &str) -> (u32, u32) {
    let pin = PinnedLink::from_pin(bpf_dir.join("links").join(pin)).expect("it is pinned");
    let info = aya::programs::links::FdLink::from(pin)
        .info()
        .expect("the kernel knows it");
    (info.id(), info.program_id())
}

/// The links of an interface that is attached natively: a TC program has one where there is TCX.
fn pins_of(ifindex: u32) -> Vec<String> {
    let hooks = ["xdp-native", "egress"];
    let hooks = &hooks[..if has_tcx() { 2 } else { 1 }];
    hooks
        .iter()
        .map(|hook| format!("{INTERFACE}-{ifindex}-{hook}"))
        .collect()
}

fn clean_up(bpf_dir: &Path) {
    let left = Leftovers::find(bpf_dir).expect("nobody is there");
    let left = left.expect("something is");
    left.take_away().expect("root may");
}

fn maps_of(bpf_dir: &Path, version: u32) -> PathBuf {
    bpf_dir.join(format!("abi-v{version}"))
}

fn open_maps(maps: &Path) -> HashMap<MapData, VipKey, Gate> {
    let pinned = MapData::from_pin(maps.join(names::GATES)).expect("it is pinned");
    Map::HashMap(pinned).try_into().expect("gates")
}

/// All that lies below a directory.
fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).expect("it can be read");
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        found.push(path.clone());
        if path.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort();
    found
}

/// What an agent of an older version left: maps that hold what all versions' do and no more, and
/// programs that are attached.
struct Older {
    lease: Array<MapData, u64>,
    gates: HashMap<MapData, VipKey, [u8; 24]>,
}

impl Older {
    fn make(bpf_dir: &Path, ifindex: u32, gates: &[(IpAddr, u64)]) -> Self {
        let mut before = open(bpf_dir);
        before
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        drop(before);
        let ours = maps_of(bpf_dir, ABI_VERSION);
        for name in names::MAPS {
            fs::remove_file(ours.join(name)).expect("it is pinned");
        }
        let maps = maps_of(bpf_dir, OLDER);
        fs::rename(ours, &maps).expect("a bpffs renames");
        let lease = Array::<_, u64>::create(1, MMAPABLE).expect("root may");
        lease.pin(maps.join(names::LEASE)).expect("it is free");
        let values = HashMap::<_, VipKey, [u8; 24]>::create(8, 0).expect("root may");
        values.pin(maps.join(names::GATES)).expect("it is free");
        let pinned = |name| MapData::from_pin(maps.join(name)).expect("it is pinned");
        let mut older = Self {
            lease: Map::Array(pinned(names::LEASE))
                .try_into()
                .expect("an array"),
            gates: Map::HashMap(pinned(names::GATES))
                .try_into()
                .expect("a hash map"),
        };
        for (vip, deadline_ns) in gates {
            older.put(*vip, *deadline_ns, ifindex);
        }
        older
    }

    fn put(&mut self, vip: IpAddr, deadline_ns: u64, ifindex: u32) {
        let mut gate = [0xee; 24];
        gate[..8].copy_from_slice(&deadline_ns.to_ne_bytes());
        gate[8..16].copy_from_slice(&7_u64.to_ne_bytes());
        gate[16..20].copy_from_slice(&ifindex.to_ne_bytes());
        self.gates
            .insert(VipKey::from(vip), gate, 0)
            .expect("there is room");
    }

    fn deadline_ns(&self, vip: IpAddr) -> Option<u64> {
        let gate = self.gates.get(&VipKey::from(vip), 0).ok()?;
        gate.first_chunk().copied().map(u64::from_ne_bytes)
    }
}

#[test]
fn a_second_start_swaps_the_programs_in_place_and_finds_the_gates() {
    staged(|bpf_dir, ifindex| {
        let vip = [10, 0, 0, 100].into();
        let gate = GateSpec {
            deadline_ns: u64::MAX,
            epoch: 7,
            ifindex,
            mac: [2, 0, 0, 0, 0, 1],
            owner_mac: [0; 6],
            is_router: false,
        };
        let pins = pins_of(ifindex);
        let links = || -> Vec<_> { pins.iter().map(|pin| link_id(bpf_dir, pin)).collect() };
        let mut first = open(bpf_dir);
        let attachment = first
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        assert_eq!(attachment.mode, Attached::Native);
        assert_eq!(attachment.why_not_better, None);
        first.put_gate(vip, gate).expect("there is room");
        first.set_lease_deadline_ns(12345);
        let before = links();
        // As if the process had died: nothing is closed.
        drop(first);
        assert!(
            shown().contains(names::XDP),
            "the guard of a dead agent stands"
        );

        let mut second = open(bpf_dir);
        assert_eq!(second.lease_deadline_ns(), 12345);
        let gates = second.gates().expect("they can be read");
        let [(found, Gate { epoch: 7, .. })] = gates.as_slice() else {
            panic!("{gates:?}");
        };
        assert_eq!(*found, vip);
        second
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it adopts");
        let after = links();
        for ((link, program), (adopted_link, swapped_program)) in before.iter().zip(&after) {
            assert_eq!(link, adopted_link, "the link is the same one");
            assert_ne!(program, swapped_program, "with another program in it");
        }
        second.close().expect("all of it can go");
        await_no_xdp();
        assert!(!bpf_dir.exists());
    });
}

#[test]
fn generic_is_attached_when_asked_for() {
    staged(|bpf_dir, ifindex| {
        strip_vlan_tags(INTERFACE, false);
        let mut dataplane = open(bpf_dir);
        let attachment = dataplane
            .attach(INTERFACE, ifindex, DataplaneMode::Generic)
            .expect("it attaches");
        assert_eq!(attachment.mode, Attached::Generic);
        assert!(shown().contains("xdpgeneric"), "{}", shown());
        dataplane.close().expect("all of it can go");
    });
}

#[test]
fn generic_is_refused_where_tags_are_stripped() {
    staged(|bpf_dir, ifindex| {
        strip_vlan_tags(INTERFACE, true);
        let mut dataplane = open(bpf_dir);
        let refused = dataplane.attach(INTERFACE, ifindex, DataplaneMode::Generic);
        let why = refused.expect_err("it would misread tagged frames");
        assert!(
            why.to_string().contains("ethtool -K va rxvlan off"),
            "{why}"
        );
        await_no_xdp();
        dataplane.close().expect("all of it can go");
    });
}

#[test]
fn tc_is_attached_where_no_xdp_can_be() {
    staged(|bpf_dir, _| {
        // The driver wants as many queues here as the other end sends by.
        let pair = "link add few numrxqueues 1 numtxqueues 1 type veth peer name many numrxqueues 2 numtxqueues 2";
        ip(&pair.split(' ').collect::<Vec<_>>());
        strip_vlan_tags("few", true);
        let few = nix::net::if_::if_nametoindex("few").expect("it was just made");
        let mut dataplane = open(bpf_dir);
        let attachment = dataplane
            .attach("few", few, DataplaneMode::Auto)
            .expect("TC can be had anywhere");
        assert_eq!(attachment.mode, Attached::Tc);
        let why = attachment.why_not_better.expect("it is the last rung");
        assert!(
            why.contains("native XDP") && why.contains("rxvlan"),
            "{why}"
        );
        dataplane.close().expect("all of it can go");
    });
}

#[test]
fn another_program_on_the_interface_stays_where_it_is() {
    staged(|bpf_dir, ifindex| {
        for foreign in [XdpMode::Skb, XdpMode::Driver] {
            let _foreign = foreign_xdp(INTERFACE, foreign);
            for mode in [DataplaneMode::Native, DataplaneMode::Generic] {
                strip_vlan_tags(INTERFACE, false);
                let mut dataplane = open(bpf_dir);
                let refused = dataplane.attach(INTERFACE, ifindex, mode);
                assert!(
                    matches!(refused, Err(DataplaneError::Taken { .. })),
                    "{mode}: {refused:?}"
                );
                dataplane.close().expect("all of it can go");
                assert!(shown().contains(names::XDP), "{}", shown());
            }
            let mut dataplane = open(bpf_dir);
            let attachment = dataplane
                .attach(INTERFACE, ifindex, DataplaneMode::Auto)
                .expect("TC has room for many");
            assert_eq!(attachment.mode, Attached::Tc);
            let why = attachment.why_not_better.expect("XDP would be better");
            assert!(why.contains("another XDP program"), "{why}");
            assert!(shown().contains(names::XDP), "{}", shown());
            dataplane.close().expect("all of it can go");
            assert!(shown().contains(names::XDP), "{}", shown());
        }
    });
}

#[test]
fn tc_stays_tc_at_the_next_start_unless_another_mode_is_asked_for() {
    staged(|bpf_dir, ifindex| {
        let attach = |mode, expected| {
            let mut dataplane = open(bpf_dir);
            let attachment = dataplane
                .attach(INTERFACE, ifindex, mode)
                .expect("it attaches");
            assert_eq!(attachment.mode, expected, "{mode}");
            dataplane.drop_unused_links().expect("they can go");
            let links = fs::read_dir(bpf_dir.join("links")).expect("they are pinned");
            let fences = usize::from(has_tcx());
            let answers = if expected == Attached::Tc { fences } else { 1 };
            assert_eq!(links.count(), fences + answers, "{mode}: one for each side");
            attachment.why_not_better
        };
        assert_eq!(attach(DataplaneMode::Tc, Attached::Tc), None);
        await_no_xdp();
        let why = attach(DataplaneMode::Auto, Attached::Tc).expect("XDP would be better");
        assert!(why.contains("by the process before"), "{why}");
        assert_eq!(attach(DataplaneMode::Native, Attached::Native), None);
        assert_eq!(attach(DataplaneMode::Auto, Attached::Native), None);
        assert_eq!(attach(DataplaneMode::Tc, Attached::Tc), None);
        await_no_xdp();
        clean_up(bpf_dir);
    });
}

#[test]
fn what_no_interface_needs_any_more_is_detached() {
    staged(|bpf_dir, ifindex| {
        let mut first = open(bpf_dir);
        first
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        drop(first);
        let mut second = open(bpf_dir);
        second.drop_unused_links().expect("they can go");
        await_no_xdp();
        second.close().expect("the rest can go");
    });
}

#[test]
fn pins_that_somebody_removed_are_made_again() {
    staged(|bpf_dir, ifindex| {
        let mut dataplane = open(bpf_dir);
        dataplane
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        assert!(dataplane.look_after().is_empty());
        let pin = pins_of(ifindex).pop().expect("there are some");
        let link = link_id(bpf_dir, &pin);

        fs::remove_dir_all(maps_of(bpf_dir, ABI_VERSION)).expect("it is there");
        fs::remove_file(bpf_dir.join("links").join(&pin)).expect("it is there");
        let amiss = dataplane.look_after();
        assert!(matches!(&amiss[..], [Amiss::PinsRestored(_)]), "{amiss:?}");
        assert_eq!(link_id(bpf_dir, &pin), link, "the same link");

        fs::remove_dir_all(bpf_dir).expect("it is there");
        let amiss = dataplane.look_after();
        assert!(matches!(&amiss[..], [Amiss::PinsRestored(_)]), "{amiss:?}");
        assert_eq!(link_id(bpf_dir, &pin), link, "the same link");
        assert!(
            matches!(
                Dataplane::open(bpf_dir, false).map(|_| ()),
                Err(DataplaneError::Busy { .. })
            ),
            "the new directory is locked"
        );
        drop(dataplane);
        drop(open(bpf_dir));
        clean_up(bpf_dir);
    });
}

#[test]
fn pins_that_cannot_be_made_again_leave_the_programs_attached() {
    staged(|bpf_dir, ifindex| {
        let mut first = open(bpf_dir);
        first
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        fs::remove_dir_all(bpf_dir).expect("it is there");
        let second = open(bpf_dir);
        let amiss = first.look_after();
        assert!(
            matches!(
                &amiss[..],
                [Amiss::PinsMissing(DataplaneError::Busy { .. })]
            ),
            "{amiss:?}"
        );
        assert!(shown().contains("xdp"), "{}", shown());
        drop(second);
        let amiss = first.look_after();
        assert!(matches!(&amiss[..], [Amiss::PinsRestored(_)]), "{amiss:?}");
    });
}

#[test]
fn an_interface_is_known_by_its_index_when_it_is_called_something_else() {
    staged(|bpf_dir, ifindex| {
        let mut first = open(bpf_dir);
        first
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it attaches");
        drop(first);
        ip(&["link", "set", INTERFACE, "down"]);
        ip(&["link", "set", INTERFACE, "name", "x"]);
        let mut second = open(bpf_dir);
        second
            .attach("x", ifindex, DataplaneMode::Auto)
            .expect("its programs are its own");
        let pins = fs::read_dir(bpf_dir.join("links")).expect("it is there");
        assert_eq!(pins.count(), pins_of(ifindex).len(), "one of each");
    });
}

#[test]
fn two_agents_do_not_share_pins_and_cleanup_waits_for_the_living() {
    staged(|bpf_dir, _| {
        let first = open(bpf_dir);
        let before = listing(bpf_dir);
        let refused = Dataplane::open(bpf_dir, false).map(|_| ());
        assert!(
            matches!(refused, Err(DataplaneError::Busy { .. })),
            "{refused:?}"
        );
        let refused = Leftovers::find(bpf_dir).map(|_| ());
        assert!(
            matches!(refused, Err(DataplaneError::Busy { .. })),
            "{refused:?}"
        );
        assert_eq!(listing(bpf_dir), before);
        drop(first);
        clean_up(bpf_dir);
        assert!(!bpf_dir.exists());
    });
}

#[test]
fn maps_of_a_newer_abi_are_refused_and_left_alone() {
    staged(|bpf_dir, _| {
        drop(open(bpf_dir));
        fs::rename(maps_of(bpf_dir, ABI_VERSION), maps_of(bpf_dir, 999)).expect("a bpffs renames");
        let before = listing(bpf_dir);
        let refused = Dataplane::open(bpf_dir, false)
            .map(|_| ())
            .expect_err("it is another's");
        let line = refused.to_string();
        assert!(
            line.contains("ABI v999")
                && line.contains(&format!("ABI v{ABI_VERSION}"))
                && line.contains("vip-agent cleanup"),
            "{line}"
        );
        assert_eq!(listing(bpf_dir), before);
        clean_up(bpf_dir);
    });
}

#[test]
fn older_maps_that_do_not_keep_to_the_contract_are_refused_and_left_alone() {
    staged(|bpf_dir, _| {
        let older = maps_of(bpf_dir, OLDER);
        fs::create_dir_all(&older).expect("a bpffs takes directories");
        let lease = Array::<_, u64>::create(1, MMAPABLE).expect("root may");
        lease.pin(older.join(names::LEASE)).expect("it is free");
        let gates = HashMap::<_, [u8; 4], [u8; 24]>::create(8, 0).expect("root may");
        gates.pin(older.join(names::GATES)).expect("it is free");
        let before = listing(bpf_dir);
        let refused = Dataplane::open(bpf_dir, false)
            .map(|_| ())
            .expect_err("the keys are no addresses");
        let line = refused.to_string();
        assert!(line.contains("ABI v0") && line.contains("GATES"), "{line}");
        assert_eq!(listing(bpf_dir), before);
        clean_up(bpf_dir);
        assert!(!bpf_dir.exists());
    });
}

/// The older maps hold no more than all versions' do.
#[test]
fn an_older_version_is_taken_over_from_in_place() {
    staged(|bpf_dir, ifindex| {
        let [opened, shut, lost] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let gates = [(opened, u64::MAX), (shut, 0), (lost, u64::MAX)];
        let mut older = Older::make(bpf_dir, ifindex, &gates);
        older.lease.set(0, 12345, 0).expect("entry 0 is there");
        let pins = pins_of(ifindex);
        let links = || -> Vec<_> { pins.iter().map(|pin| link_id(bpf_dir, pin)).collect() };
        let before = links();

        let mut dataplane = open(bpf_dir);
        assert_eq!(dataplane.lease_deadline_ns(), 12345);
        let mut copied: Vec<_> = dataplane
            .gates()
            .expect("they can be read")
            .into_iter()
            .map(|(vip, gate)| (vip, gate.deadline_ns, gate.epoch, gate.ifindex))
            .collect();
        copied.sort_unstable();
        let expected = gates.map(|(vip, deadline_ns)| (vip, deadline_ns, 7, ifindex));
        assert_eq!(copied, expected);

        // Until the programs are swapped, the old ones must shut with the new ones.
        dataplane.set_lease_deadline_ns(23456);
        assert_eq!(older.lease.get(&0, 0).expect("entry 0 is there"), 23456);
        let closed = GateSpec {
            deadline_ns: 0,
            epoch: 8,
            ifindex,
            mac: cases::OUR_MAC,
            owner_mac: cases::OWNER_MAC,
            is_router: false,
        };
        dataplane.put_gate(lost, closed).expect("there is room");
        assert_eq!(older.deadline_ns(lost), Some(0));
        assert_eq!(older.deadline_ns(opened), Some(u64::MAX));
        dataplane.remove_gate(opened).expect("it is there");
        assert_eq!(older.deadline_ns(opened), Some(0));

        dataplane
            .attach(INTERFACE, ifindex, DataplaneMode::Auto)
            .expect("it adopts");
        assert!(maps_of(bpf_dir, OLDER).exists());
        dataplane.drop_unused_links().expect("nothing is unused");
        assert!(!maps_of(bpf_dir, OLDER).exists());
        let after = links();
        for ((link, program), (adopted_link, swapped_program)) in before.iter().zip(&after) {
            assert_eq!(link, adopted_link, "the link is the same one");
            assert_ne!(program, swapped_program, "with another program in it");
        }
        dataplane.close().expect("all of it can go");
        assert!(!bpf_dir.exists());
    });
}

/// In an instant without a guard the stack would hear a request for the address, which is there, and
/// learn who asks.
#[test]
fn no_frame_is_seen_by_none_while_an_older_version_is_taken_over_from() {
    const ROUNDS: u32 = 20;
    staged(|bpf_dir, ifindex| {
        let vip = cases::VIP.into();
        let mac = cases::OUR_MAC;
        let shut = GateSpec {
            deadline_ns: 0,
            epoch: 1,
            ifindex,
            mac,
            owner_mac: cases::OWNER_MAC,
            is_router: false,
        };
        ip(&["link", "set", INTERFACE, "address", "02:00:00:00:00:01"]);
        ip(&["addr", "add", "10.0.0.100/24", "dev", INTERFACE]);
        let is_known = || ip(&["neigh", "show", "dev", INTERFACE]).contains("10.0.0.7 ");
        let mut wire = Wire::open();
        let take_over = || {
            let mut dataplane = open(bpf_dir);
            dataplane.put_gate(vip, shut).expect("there is room");
            dataplane
                .attach(INTERFACE, ifindex, DataplaneMode::Auto)
                .expect("it attaches");
            dataplane.drop_unused_links().expect("nothing is unused");
            dataplane
        };
        let mut standing = Some(take_over());
        let is_done = AtomicBool::new(false);
        let request = cases::arp_frame(
            cases::BROADCAST,
            1,
            (cases::CLIENT_MAC, cases::CLIENT),
            ([0; 6], cases::VIP),
        );
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0_u64;
                while !is_done.load(Ordering::Relaxed) {
                    wire.send(&request);
                    asked += 1;
                }
                asked
            });
            for _ in 0..ROUNDS {
                drop(standing.take());
                fs::rename(maps_of(bpf_dir, ABI_VERSION), maps_of(bpf_dir, OLDER))
                    .expect("a bpffs renames");
                standing = Some(take_over());
                assert!(!maps_of(bpf_dir, OLDER).exists());
            }
            is_done.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("it only sends");
            assert!(asked > 1000, "{asked}");
        });
        assert!(!is_known(), "a request came through");
        let dataplane = standing.expect("the last one");
        dataplane.close().expect("all of it can go");
        // Now it comes through, which shows that it could have.
        let deadline = Instant::now() + PATIENCE;
        while !is_known() {
            assert!(Instant::now() < deadline, "the stack never learns who asks");
            wire.send(&request);
        }
    });
}

#[test]
fn a_take_over_that_died_on_the_way_is_gone_on_with_and_opens_nothing() {
    staged(|bpf_dir, ifindex| {
        let [open_in_both, shut_in_old, shut_in_new] =
            [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let gates = [
            (open_in_both, u64::MAX),
            (shut_in_old, u64::MAX),
            (shut_in_new, u64::MAX),
        ];
        let mut older = Older::make(bpf_dir, ifindex, &gates);
        older.lease.set(0, 1000, 0).expect("entry 0 is there");
        drop(open(bpf_dir));
        let mut newer = open_maps(&maps_of(bpf_dir, ABI_VERSION));
        let key = VipKey::from(shut_in_new);
        let gate = newer.get(&key, 0).expect("it was copied");
        let gate = Gate {
            deadline_ns: 0,
            ..gate
        };
        newer.insert(key, gate, 0).expect("it is there");
        older.put(shut_in_old, 0, ifindex);
        older.lease.set(0, 900, 0).expect("entry 0 is there");

        let dataplane = open(bpf_dir);
        assert_eq!(dataplane.lease_deadline_ns(), 900, "the earlier of the two");
        for (vip, gate) in dataplane.gates().expect("they can be read") {
            let is_open = gate.deadline_ns > 0;
            assert_eq!(is_open, vip == open_in_both, "{vip}");
            assert_eq!(older.deadline_ns(vip), Some(gate.deadline_ns), "{vip}");
        }
        dataplane.close().expect("all of it can go");
        assert!(!bpf_dir.exists());
    });
}

/// Descriptors run out at one step of the start after the other.
#[test]
fn a_start_that_fails_leaves_all_as_it_was() {
    staged(|bpf_dir, ifindex| {
        // What the library finds out about the kernel it finds out once: not in want of descriptors.
        open(bpf_dir).close().expect("all of it can go");
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it can be asked");
        // The lowest free number: with that as the limit, not one more can be opened.
        let next = File::open("/dev/null").expect("any file").as_raw_fd();
        let next = u64::try_from(next).expect("descriptors are not negative");
        let opened_with = |bpf_dir: &Path, spare: u64| {
            let limit = next + spare;
            setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("less is allowed");
            let opened = Dataplane::open(bpf_dir, false);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it was so before");
            opened
        };
        let mount = bpf_dir.parent().expect("a bpffs").to_owned();
        let before = listing(&mount);
        let nested = bpf_dir.join("of").join("one");
        let mut failures = 0;
        let first = loop {
            match opened_with(&nested, failures) {
                Ok(dataplane) => break dataplane,
                Err(error) => assert_eq!(listing(&mount), before, "{error}"),
            }
            failures += 1;
        };
        assert!(failures >= 10, "only {failures} steps were made to fail");
        first.close().expect("all of it can go");

        Older::make(bpf_dir, ifindex, &[([10, 0, 0, 1].into(), u64::MAX)]);
        let before = listing(&mount);
        for spare in 0..failures {
            let refused = opened_with(bpf_dir, spare).map(|_| ());
            assert!(refused.is_err(), "{spare}");
            assert_eq!(listing(&mount), before, "{spare}: {refused:?}");
        }
        clean_up(bpf_dir);
    });
}

#[test]
fn a_start_that_fails_leaves_the_maps_that_stood_there() {
    staged(|bpf_dir, _| {
        let maps = maps_of(bpf_dir, ABI_VERSION);
        fs::create_dir_all(&maps).expect("a bpffs takes directories");
        let gates = HashMap::<_, u32, u32>::create(8, 0).expect("root may");
        gates.pin(maps.join(names::GATES)).expect("it is free");
        let before = listing(bpf_dir);
        let refused = Dataplane::open(bpf_dir, false).map(|_| ());
        assert!(
            matches!(refused, Err(DataplaneError::Load(_))),
            "{refused:?}"
        );
        assert_eq!(listing(bpf_dir), before);
    });
}

#[test]
fn pins_elsewhere_than_on_a_bpffs_are_refused() {
    staged(|_, _| {
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        let refused = Dataplane::open(elsewhere.path(), false).map(|_| ());
        assert!(
            matches!(refused, Err(DataplaneError::NotBpffs { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn counters_start_at_zero_for_a_vip_that_gets_a_row_that_was_in_use() {
    staged(|bpf_dir, ifindex| {
        let gate = GateSpec {
            deadline_ns: 0,
            epoch: 0,
            ifindex,
            mac: [0; 6],
            owner_mac: [0; 6],
            is_router: false,
        };
        let mut dataplane = open(bpf_dir);
        let [old, new] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        dataplane.put_gate(old, gate).expect("there is room");
        let pinned = Map::PerCpuArray(
            MapData::from_pin(maps_of(bpf_dir, ABI_VERSION).join(names::COUNTERS))
                .expect("it is pinned"),
        );
        let mut counters: PerCpuArray<_, Counters> = pinned.try_into().expect("a per-CPU array");
        let cpus = counters.get(&0, 0).expect("row 0 is there").len();
        let used = Counters {
            answered: 1,
            ..Counters::default()
        };
        let rows = PerCpuValues::try_from(vec![used; cpus]).expect("one per CPU");
        counters.set(0, rows, 0).expect("row 0 is there");
        assert_ne!(
            dataplane.counters(old).expect("it has a row"),
            Counters::default()
        );
        dataplane.remove_gate(old).expect("it is there");
        dataplane.put_gate(new, gate).expect("there is room");
        let gates = dataplane.gates().expect("they can be read");
        assert_eq!(gates.len(), 1);
        assert_eq!(gates[0].1.slot, 0, "the row is used again");
        assert_eq!(
            dataplane.counters(new).expect("it has a row"),
            Counters::default()
        );
        dataplane.close().expect("all of it can go");
    });
}

/// A program that is interrupted between finding a gate and reading it must not read another shared
/// IP's: a follower would answer.
#[test]
fn a_gate_is_never_seen_as_another_ones() {
    const LOOPBACK: u32 = 1;
    staged(|bpf_dir, _| {
        let runs = times(30_000_000);
        let mut dataplane = open(bpf_dir);
        let (closed, opened) = ([10, 0, 0, 100].into(), [10, 0, 0, 101].into());
        let gate = |deadline_ns, epoch, owner| GateSpec {
            deadline_ns,
            epoch,
            ifindex: LOOPBACK,
            mac: cases::OUR_MAC,
            owner_mac: owner,
            is_router: false,
        };
        dataplane.set_lease_deadline_ns(u64::MAX);
        let mut put = |epoch: u64| {
            let owner = if epoch.is_multiple_of(2) {
                cases::OWNER_MAC
            } else {
                cases::MEMBER_MAC
            };
            for (vip, deadline_ns) in [(closed, 0), (opened, u64::MAX)] {
                dataplane
                    .put_gate(vip, gate(deadline_ns, epoch, owner))
                    .expect("there is room");
            }
        };
        put(0);
        let running = runs_of_a_request(bpf_dir, runs);
        let mut epoch = 0;
        while !running.is_finished() {
            epoch += 1;
            put(epoch);
        }
        running.join().expect("the kernel runs it");
        assert!(epoch > 100, "hardly any change was made meanwhile: {epoch}");
        let counted = [closed, opened].map(|vip| dataplane.counters(vip).expect("it has a row"));
        assert_eq!(counted[0].stale, u64::from(runs), "{counted:?}");
        assert_eq!(counted[1], Counters::default());
        dataplane.close().expect("all of it can go");
    });
}

/// Runs the ingress program on a request for 10.0.0.100, in a thread, with the pinned maps.
fn runs_of_a_request(bpf_dir: &Path, runs: u32) -> thread::JoinHandle<()> {
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        loader.map_pin_path(name, maps_of(bpf_dir, ABI_VERSION).join(name));
    }
    let mut programs = loader
        .load(object().expect("`staged` asked"))
        .expect("the maps fit");
    let request = cases::arp_frame(
        cases::BROADCAST,
        1,
        (cases::CLIENT_MAC, cases::CLIENT),
        ([0; 6], [10, 0, 0, 100]),
    );
    thread::spawn(move || {
        let program: &mut Xdp = programs
            .program_mut(names::XDP)
            .expect("it is there")
            .try_into()
            .expect("it is XDP");
        program.load().expect("it loads");
        let options = TestRunOptions {
            data_in: Some(&request),
            repeat: runs,
            ..TestRunOptions::default()
        };
        program.test_run(options).expect("the kernel runs it");
    })
}
