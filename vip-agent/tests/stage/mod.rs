//! Where kernel tests play: a veth pair and a bpffs, in network and mount namespaces that each test
//! makes for itself, and that end with its thread.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod tcx;
pub mod vlan;
pub mod wire;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use vip_agent::dataplane::{Dataplane, GateSpec, object};
use vip_common::{abi::names, cases};

/// The interface that the programs are attached to; its peer is [`PEER`].
pub const INTERFACE: &str = "va";
/// The other end.
pub const PEER: &str = "vb";

/// A child that one test starts holds, until it has become `ip`, whatever another test has open: a
/// lock, a file on a bpffs that is to be unmounted.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `test` with a fresh bpffs and a veth pair `va`, `vb`, where that is allowed.
pub fn staged(test: fn(&Path, u32)) {
    if !nix::unistd::geteuid().is_root() || object().is_none() {
        let why = "skipped: attaching needs root and a build with the eBPF object";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
        eprintln!("{why}");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root may");
        let directory = tempfile::tempdir().expect("a temporary directory");
        mount(
            Some("bpf"),
            directory.path(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .expect("the kernel has bpffs");
        ip(&[
            "link", "add", INTERFACE, "type", "veth", "peer", "name", PEER,
        ]);
        ip(&["link", "set", INTERFACE, "up"]);
        ip(&["link", "set", PEER, "up"]);
        let ifindex = nix::net::if_::if_nametoindex(INTERFACE).expect("it was just made");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let _reactor = runtime.enter();
        test(&directory.path().join("vip-agent"), ifindex);
        nix::mount::umount(directory.path()).expect("nothing holds it");
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

pub fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

pub fn tc(arguments: &[&str]) -> String {
    run("tc", arguments)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    said
}

/// Has an interface leave VLAN tags in the frames that it receives, or take them off.
pub fn strip_vlan_tags(interface: &str, strip: bool) {
    let switch = if strip { "on" } else { "off" };
    let output = Command::new("ethtool")
        .args(["-K", interface, "rxvlan", switch])
        .output()
        .expect("ethtool is installed");
    assert!(output.status.success(), "{output:?}");
}

/// Attaches an XDP program that is not the agent's, for as long as what is returned lives: it passes
/// all frames, for it is ours without a gate.
pub fn foreign_xdp(interface: &str, mode: XdpMode) -> Ebpf {
    let object = object().expect("`staged` asked");
    let mut foreign = EbpfLoader::new().load(object).expect("the programs load");
    let program: &mut Xdp = foreign
        .program_mut(names::XDP)
        .expect("it is there")
        .try_into()
        .expect("it is XDP");
    program.load().expect("it loads");
    program.attach(interface, mode).expect("it attaches");
    foreign
}

/// Whether this kernel has TCX, and so links of TC programs.
pub fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("it can be read");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0_u32));
    let version = (numbers.next(), numbers.next());
    version >= (Some(6), Some(6))
}

/// Of what is done so often on a machine, how often on this one: much less often in the emulated one of
/// `cargo xtask test-kernels`, where each takes many times as long.
pub fn times(often: u32) -> u32 {
    if std::env::var_os("VIP_TEST_EMULATED").is_some() {
        often / 10
    } else {
        often
    }
}

/// A gate of ours, at [`cases::OUR_MAC`].
pub fn gate(ifindex: u32, deadline_ns: u64) -> GateSpec {
    GateSpec {
        deadline_ns,
        epoch: 1,
        ifindex,
        mac: cases::OUR_MAC,
        owner_mac: cases::OUR_MAC,
        is_router: false,
    }
}

/// The programs, loaded.
pub fn open(bpf_dir: &Path) -> Dataplane {
    Dataplane::open(bpf_dir, false).expect("the programs load")
}
