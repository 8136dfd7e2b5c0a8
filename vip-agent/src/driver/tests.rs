//! Addresses and announcements against the real kernel, each on a [stage](crate::net::stage) of its own.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    addresses::{Addresses, Answer, Outcome},
    announcements::Announcements,
    interfaces::Interfaces,
    neighbours::Neighbours,
    *,
};
use crate::{
    config::{InterfaceConfig, Probing, VipConfig},
    dataplane::DataplaneMode,
    election::{Gate, Mac},
    net::{
        AddressManager, NeighbourManager,
        stage::{MAC, ip, runtime, staged, until_running},
    },
};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));
const VIP6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 0x64));
const TTL: Duration = Duration::from_secs(6);
/// Within it, what is to come comes, and what is not would have.
const QUIET: Duration = Duration::from_millis(300);
const BUSY_MACHINE: Duration = Duration::from_secs(20);

/// Addresses on `va`, and the answers to their orders.
struct Scene {
    interfaces: Interfaces,
    addresses: Addresses,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Scene {
    async fn new(dataplane: DataplaneMode) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        let manager = AddressManager::open().expect("root may");
        let mut scene = Self {
            interfaces: Interfaces::new(&[InterfaceConfig {
                name: "va".to_owned(),
                dataplane,
                probe: Probing::default(),
                vips: [VIP, VIP6].map(VipConfig::new).into(),
            }]),
            addresses: Addresses::new(manager, TTL, sender),
            answers,
        };
        scene.look().await;
        let deadline = clock::boot_now() + TTL;
        scene.addresses.deadline_moved(deadline, &scene.interfaces);
        scene
    }

    async fn look(&mut self) {
        let links = net::links().await.expect("anybody may");
        let in_use = self.addresses.interfaces_in_use();
        let attached = self.interfaces.refresh(&links, &in_use, None);
        attached.expect("nothing is to be attached");
        self.addresses.compare(&links, &[], &self.interfaces);
    }

    /// What comes of the next answer that means anything, with time going on meanwhile.
    async fn outcome(&mut self, within: Duration) -> Option<Outcome> {
        let wait = async {
            loop {
                self.addresses.on_time(clock::boot_now(), &self.interfaces);
                let soon = Duration::from_millis(20);
                let Ok(answer) = timeout(soon, self.answers.recv()).await else {
                    continue;
                };
                let answer = answer.expect("it holds a sender itself");
                match self.addresses.take_in(answer, &self.interfaces) {
                    Outcome::Nothing => {}
                    outcome => return outcome,
                }
            }
        };
        timeout(within, wait).await.ok()
    }

    async fn add(&mut self) {
        self.add_one(VIP).await;
    }

    async fn add_one(&mut self, vip: IpAddr) {
        self.addresses.add(vip, &self.interfaces);
        let outcome = self.outcome(BUSY_MACHINE).await;
        assert_eq!(outcome, Some(Outcome::Told(Event::AddressAdded(vip))));
    }

    async fn remove(&mut self) {
        self.addresses.remove(VIP, &self.interfaces);
        let outcome = self.outcome(BUSY_MACHINE).await;
        assert_eq!(outcome, Some(Outcome::Told(Event::AddressRemoved(VIP))));
    }
}

/// What `ip` says of the shared IPv6 address, if it is on `va`.
fn ipv6_on_va() -> Option<String> {
    let all = ip("-6 -o addr show dev va");
    let line = all
        .lines()
        .find(|line| line.contains(&format!(" {VIP6}/128 ")));
    line.map(str::to_owned)
}

fn set_ipv6(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/va/{setting}");
    std::fs::write(path, value).expect("root may");
}

/// The MAC and the state of the entry for `vip` in the kernel's table.
fn neighbour(vip: IpAddr) -> String {
    ip(&format!("neigh show {vip} dev va")).trim().to_owned()
}

async fn until_neighbour(vip: IpAddr, is_right: impl Fn(&str) -> bool) {
    let start = Instant::now();
    while !is_right(&neighbour(vip)) {
        assert!(start.elapsed() < BUSY_MACHINE, "{}", neighbour(vip));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_on(interface: &str) -> bool {
    ip(&format!("-4 -o addr show dev {interface}")).contains("10.0.0.100/32")
}

/// Of this thread alone, which ends with the test.
fn set_effective_user(id: libc::c_long) {
    // SAFETY: it reads no memory. As a bare system call it changes this thread alone.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, id, -1) };
    assert_eq!(changed, 0);
}

#[test]
fn an_address_is_taken_off_where_it_was_put_whatever_that_is_called_now() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.add().await;
            ip("link set va down");
            ip("link set va name x");
            ip("link add va type bridge");
            scene.look().await;
            assert!(is_on("x"));
            scene.remove().await;
            assert!(!is_on("x"));
            assert!(scene.addresses.lingering().is_empty());
        });
    });
}

#[test]
fn a_removal_that_fails_is_tried_until_it_does_not_and_is_not_told_before() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.add().await;
            set_effective_user(65_534);
            scene.addresses.remove(VIP, &scene.interfaces);
            assert_eq!(scene.outcome(2 * QUIET).await, None);
            assert_eq!(scene.addresses.lingering(), [VIP]);
            set_effective_user(0);
            assert!(is_on("va"), "the test is void: it was removed at once");
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::Told(Event::AddressRemoved(VIP))));
            assert!(!is_on("va"));
            assert!(scene.addresses.lingering().is_empty());
        });
    });
}

#[test]
fn what_is_gone_with_its_interface_is_removed() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.add().await;
            ip("link del va");
            scene.look().await;
            scene.remove().await;
        });
    });
}

#[test]
fn an_interface_that_nothing_guards_gets_no_address() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Auto).await;
            scene.addresses.add(VIP, &scene.interfaces);
            let outcome = scene.outcome(BUSY_MACHINE).await;
            let Some(Outcome::Told(Event::AddressFailed(VIP, why))) = outcome else {
                panic!("{outcome:?}");
            };
            assert!(why.contains("va"), "{why}");
            assert_eq!(scene.outcome(QUIET).await, None, "it is not tried again");
            assert!(!is_on("va"));
        });
    });
}

#[test]
fn an_address_that_somebody_took_off_is_put_back_and_no_more_once_it_is_unwanted() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.add().await;
            ip("addr del 10.0.0.100/32 dev va");
            scene.look().await;
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::PutBack(VIP)));
            assert!(is_on("va"));
            scene.remove().await;
            scene.look().await;
            assert_eq!(scene.outcome(QUIET).await, None);
            assert!(!is_on("va"));
        });
    });
}

#[test]
fn an_ipv6_address_that_went_with_its_link_is_put_back_when_that_is_up() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.add().await;
            scene.add_one(VIP6).await;
            // Faster than anybody looks.
            ip("link set va down");
            ip("link set va up");
            until_running("va");
            assert!(is_on("va"), "IPv4 addresses stay");
            assert_eq!(ipv6_on_va(), None, "the test is void: it did not go");
            scene.look().await;
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::PutBack(VIP6)));
            assert!(ipv6_on_va().is_some());
        });
    });
}

#[test]
fn an_address_that_failed_duplicate_address_detection_is_told_of_and_put_on_anew() {
    staged(|_| {
        ip(&format!("addr add {VIP6}/128 dev vb nodad"));
        set_ipv6("accept_dad", "1");
        let failed = || ipv6_on_va().is_some_and(|line| line.contains("dadfailed"));
        let fail = || {
            ip(&format!("addr add {VIP6}/128 dev va"));
            let start = Instant::now();
            while !failed() {
                assert!(start.elapsed() < BUSY_MACHINE, "{:?}", ipv6_on_va());
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        runtime().block_on(async {
            let found = async |scene: &Scene| {
                let links = net::links().await.expect("anybody may");
                super::duplicates::found(&scene.interfaces, &links)
            };
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            assert_eq!(found(&scene).await, [] as [String; 0]);
            fail();
            scene.look().await;
            let [warning] = found(&scene).await.try_into().expect("one");
            assert!(warning.contains("fd00::1:64 was put on va"), "{warning}");

            scene.add_one(VIP6).await;
            assert!(!failed(), "{:?}", ipv6_on_va());
            scene.look().await;
            assert_eq!(found(&scene).await, [] as [String; 0]);
            assert_eq!(scene.outcome(QUIET).await, None, "it is there");

            // Once more, behind the owner's back.
            ip(&format!("addr del {VIP6}/128 dev va"));
            fail();
            scene.look().await;
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::PutBack(VIP6)));
            assert!(!failed(), "{:?}", ipv6_on_va());
        });
    });
}

#[test]
fn an_interface_without_ipv6_serves_ipv4_and_says_what_is_amiss() {
    staged(|_| {
        runtime().block_on(async {
            ip("addr add 10.0.0.1/24 dev va");
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            let fit = |scene: &Scene| {
                let interface = &scene.interfaces.all[0];
                [VIP, VIP6].map(|vip| interface.fitness(vip).is_fit())
            };
            assert_eq!(fit(&scene), [true, true]);
            set_ipv6("disable_ipv6", "1");
            assert!(scene.interfaces.settings_changed());
            scene.look().await;
            assert_eq!(fit(&scene), [true, false]);
            assert!(!scene.interfaces.settings_changed());
            let why = scene.interfaces.all[0]
                .why_unfit(VIP6)
                .expect("IPv6 is off");
            let why = why.to_string();
            assert!(
                why.starts_with("interface va: IPv6 is off there; `sysctl -w"),
                "{why}"
            );
            // The address went with IPv6, so giving it up does not fail.
            scene.addresses.remove(VIP6, &scene.interfaces);
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::Told(Event::AddressRemoved(VIP6))));
            set_ipv6("disable_ipv6", "0");
            assert!(scene.interfaces.settings_changed());
            scene.look().await;
            assert_eq!(fit(&scene), [true, true]);
        });
    });
}

#[test]
fn a_link_needs_an_address_of_its_own_of_the_shared_ips_family() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            let fitness = |scene: &Scene| scene.interfaces.all[0].fitness(VIP);
            let lacks_it = Fitness::Unhealthy(
                Mac(MAC),
                "interface va: it has no IPv4 address of its own".to_owned(),
            );
            assert_eq!(fitness(&scene), lacks_it);
            // A link-local one is enough, where there are such.
            assert!(scene.interfaces.all[0].fitness(VIP6).is_fit());
            ip("addr add 10.0.0.1/24 dev va");
            scene.look().await;
            assert_eq!(fitness(&scene), Fitness::Fit(Mac(MAC)));
            scene.add().await;
            ip("addr del 10.0.0.1/24 dev va");
            scene.look().await;
            // The shared IP is none of its own.
            assert_eq!(fitness(&scene), lacks_it);
            assert!(ip("addr show dev va").contains(&VIP.to_string()));
        });
    });
}

#[test]
fn this_host_knows_the_owner_from_its_record() {
    staged(|_| {
        runtime().block_on(async {
            let [a, b] = [0xa, 0xb].map(|last| Mac([2, 0, 0, 0, 0, last]));
            let owned_by = |mac| Gate::Closed {
                epoch: 7,
                owner: Some(mac),
            };
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            let manager = NeighbourManager::open().expect("root may");
            let mut neighbours = Neighbours::new(manager);
            for vip in [VIP, VIP6] {
                neighbours.gate_set(vip, owned_by(a), &scene.interfaces);
                let at_a = "lladdr 02:00:00:00:00:0a REACHABLE";
                until_neighbour(vip, |entry| entry.contains(at_a)).await;
                neighbours.gate_set(vip, owned_by(b), &scene.interfaces);
                let at_b = "lladdr 02:00:00:00:00:0b REACHABLE";
                until_neighbour(vip, |entry| entry.contains(at_b)).await;
            }
            // The kernel forgets all with the link.
            ip("link set va down");
            scene.look().await;
            neighbours.look_at(&scene.interfaces);
            ip("link set va up");
            until_running("va");
            for vip in [VIP, VIP6] {
                assert_eq!(neighbour(vip), "", "the test is void");
            }
            scene.look().await;
            neighbours.look_at(&scene.interfaces);
            for vip in [VIP, VIP6] {
                until_neighbour(vip, |entry| entry.contains("02:00:00:00:00:0b")).await;
            }
            // And of IPv6 where that is off.
            set_ipv6("disable_ipv6", "1");
            scene.look().await;
            neighbours.look_at(&scene.interfaces);
            set_ipv6("disable_ipv6", "0");
            assert_eq!(neighbour(VIP6), "", "the test is void");
            scene.look().await;
            neighbours.look_at(&scene.interfaces);
            until_neighbour(VIP6, |entry| entry.contains("02:00:00:00:00:0b")).await;
            for vip in [VIP, VIP6] {
                // Nobody's: what was known is as good as anything. Then ours.
                let vacant = Gate::Closed {
                    epoch: 0,
                    owner: None,
                };
                neighbours.gate_set(vip, vacant, &scene.interfaces);
                neighbours.gate_set(vip, owned_by(Mac(MAC)), &scene.interfaces);
                neighbours.gate_set(vip, Gate::Open { epoch: 8 }, &scene.interfaces);
                until_neighbour(vip, str::is_empty).await;
            }
        });
    });
}

#[test]
fn a_neighbour_that_cannot_be_told_of_harms_nothing() {
    staged(|ifindex| {
        runtime().block_on(async {
            let mut manager = NeighbourManager::open().expect("root may");
            for vip in [VIP, VIP6] {
                let gone = manager
                    .set(9_999, vip, MAC)
                    .await
                    .expect_err("there is none");
                let text = format!("the neighbour entry of {vip} on interface with index 9999");
                assert!(gone.to_string().starts_with(&text), "{gone}");
                manager
                    .remove(9_999, vip)
                    .await
                    .expect("no such interface: fine");
                manager.remove(ifindex, vip).await.expect("not there: fine");
            }
        });
    });
}

#[test]
fn a_link_that_is_called_something_else_is_held_on_to_until_its_address_is_off() {
    staged(|ifindex| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            let unfit = |scene: &Scene| {
                scene.interfaces.all[0]
                    .unfit
                    .as_ref()
                    .map(ToString::to_string)
            };
            let held = |scene: &Scene| {
                let link = scene.interfaces.all[0].link.as_ref();
                link.map(|link| link.ifindex)
            };
            scene.look().await;
            assert_eq!(unfit(&scene), None);
            scene.add().await;

            ip("link set va down");
            ip("link set va name x");
            ip("link set x up");
            scene.look().await;
            assert_eq!(held(&scene), Some(ifindex));
            let why = unfit(&scene).expect("it is called something else");
            assert!(why.contains("interface va: it is called x now"), "{why}");

            ip("link add va type bridge");
            scene.look().await;
            assert_eq!(held(&scene), Some(ifindex), "its address is on it");
            scene.remove().await;
            scene.look().await;
            assert_ne!(held(&scene), Some(ifindex), "its name is another's");

            ip("link del va");
            ip("link set x down");
            ip("link set x name va");
            ip("link set va up");
            until_running("va");
            scene.look().await;
            assert_eq!((held(&scene), unfit(&scene)), (Some(ifindex), None));
        });
    });
}

#[test]
fn without_a_gate_an_address_waits_for_a_lease_that_has_time_left() {
    staged(|_| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            let soon = clock::boot_now() + Duration::from_secs(1);
            scene.addresses.deadline_moved(soon, &scene.interfaces);
            scene.addresses.add(VIP, &scene.interfaces);
            assert_eq!(scene.outcome(QUIET).await, None, "neither put nor refused");
            let later = clock::boot_now() + TTL;
            scene.addresses.deadline_moved(later, &scene.interfaces);
            let outcome = scene.outcome(BUSY_MACHINE).await;
            assert_eq!(outcome, Some(Outcome::Told(Event::AddressAdded(VIP))));
            assert!(is_on("va"));
        });
    });
}

#[test]
fn without_a_gate_a_suspended_owner_announces_nothing() {
    staged(|_| {
        let ear = listen();
        runtime().block_on(async {
            let scene = Scene::new(DataplaneMode::Kernel).await;
            let mut announcements = Announcements::new(Announcer::open().expect("root may"));
            announcements.deadline_moved(clock::boot_now() + TTL);
            announcements.begin(VIP, &scene.interfaces);
            // A link that has just come up sends nothing yet.
            let start = Instant::now();
            while heard(&ear) == 0 {
                assert!(start.elapsed() < BUSY_MACHINE, "nothing was announced");
                announcements.repeat(VIP, &scene.interfaces);
            }

            let send_next = |announcements: &mut Announcements| {
                let due = announcements.next_due().expect("there is always a next");
                announcements.send_due(due, &scene.interfaces);
            };
            announcements.deadline_moved(clock::boot_now());
            send_next(&mut announcements);
            announcements.repeat(VIP, &scene.interfaces);
            send_next(&mut announcements);
            assert_eq!(heard(&ear), 0);

            announcements.deadline_moved(clock::boot_now() + TTL);
            announcements.repeat(VIP, &scene.interfaces);
            send_next(&mut announcements);
            assert_eq!(heard(&ear), 2);
        });
    });
}

#[test]
fn in_use_is_what_an_address_may_be_on() {
    staged(|ifindex| {
        runtime().block_on(async {
            let mut scene = Scene::new(DataplaneMode::Kernel).await;
            scene.addresses.inherit(VIP, ifindex);
            assert_eq!(scene.addresses.interfaces_in_use(), BTreeSet::new());
            assert_eq!(scene.addresses.lingering(), [VIP]);
            scene.add().await;
            assert_eq!(
                scene.addresses.interfaces_in_use(),
                BTreeSet::from([ifindex])
            );
        });
    });
}

fn listen() -> OwnedFd {
    let everything = SockProtocol::EthAll;
    let ear = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        everything,
    )
    .expect("root may");
    setsockopt(&ear, ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a socket");
    ear
}

/// How many ARP packets for the shared IP left `va` within a while.
fn heard(ear: &OwnedFd) -> usize {
    let mut buffer = [0; 2_048];
    let mut count = 0;
    let end = Instant::now() + QUIET;
    while Instant::now() < end {
        let Ok(length) = recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
            continue;
        };
        let frame = &buffer[..length];
        let is_arp_of_vip = frame.get(12..14) == Some(&[8, 6][..])
            && frame.get(28..32) == Some(&[10, 0, 0, 100][..]);
        count += usize::from(is_arp_of_vip);
    }
    // What `va` sends, `vb` hears.
    count / 2
}
