//! Against the real kernel, each on a [stage](super::stage) of its own.

use std::{
    fs, io,
    net::{IpAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use pnet::packet::arp::ArpOperations;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    stage::{MAC, ip, run, runtime, staged},
    *,
};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));
const VIP6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 0x64));
const LINK_LOCAL_VIP: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, 0x64));
/// Within it, what is to come comes, and what is not would have.
const QUIET: Duration = Duration::from_millis(300);

/// Also checks, when compiled, that what the agent spawns may be spawned.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

/// What `ip` says of the IPv4 addresses of `va`.
fn addresses() -> Vec<Value> {
    addresses_of("-4")
}

/// What `ip` says of an IPv6 address of `va`.
fn ipv6_address(address: IpAddr) -> Option<Value> {
    let is_it = |one: &Value| one["local"] == address.to_string();
    addresses_of("-6").into_iter().find(is_it)
}

fn addresses_of(family: &str) -> Vec<Value> {
    let links = ip(&format!("-j {family} addr show dev va"));
    let links: Value = serde_json::from_str(&links).expect("JSON");
    let listed = links[0]["addr_info"].as_array();
    listed.cloned().unwrap_or_default()
}

#[test]
fn an_address_is_put_renewed_and_taken_off() {
    staged(|ifindex| {
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let lifetime = Duration::from_millis(30_900);
            sendable(manager.add(ifindex, VIP, lifetime))
                .await
                .expect("the first time");
            let [address] = addresses().try_into().expect("one address");
            assert_eq!(address["local"], "10.0.0.100");
            assert_eq!(address["prefixlen"], 32);
            assert_eq!(address["scope"], "host");
            assert_eq!(address["noprefixroute"], true);
            assert_eq!(address["dynamic"], true);
            assert_eq!(address.get("broadcast"), None);
            for field in ["valid_life_time", "preferred_life_time"] {
                let seconds = address[field].as_u64();
                assert!(matches!(seconds, Some(29..=30)), "{field}: {seconds:?}");
            }
            assert_eq!(ip("-4 route show"), "");

            let longer = Duration::from_secs(90);
            manager.add(ifindex, VIP, longer).await.expect("a renewal");
            let [address] = addresses().try_into().expect("still one");
            let seconds = address["valid_life_time"].as_u64();
            assert!(matches!(seconds, Some(89..=90)), "{seconds:?}");

            sendable(manager.remove(ifindex, VIP))
                .await
                .expect("it was there");
            assert_eq!(addresses(), [] as [Value; 0]);
            manager.remove(ifindex, VIP).await.expect("not there: fine");
            manager
                .remove(9_999, VIP)
                .await
                .expect("no such interface: fine");
        });
    });
}

#[test]
fn an_ipv6_address_serves_at_once_is_renewed_without_a_gap_and_taken_off() {
    staged(|ifindex| {
        ip("link set lo up");
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let mut monitor = LinkMonitor::open().expect("anybody may");
            for vip in [VIP6, LINK_LOCAL_VIP] {
                let lifetime = Duration::from_millis(30_900);
                sendable(manager.add(ifindex, vip, lifetime))
                    .await
                    .expect("the first time");
                let scope = u32::from(vip == LINK_LOCAL_VIP) * ifindex;
                let IpAddr::V6(v6) = vip else { unreachable!() };
                let service = UdpSocket::bind(SocketAddrV6::new(v6, 0, 0, scope));
                let service = service.expect("the address is no tentative one");
                let patience = Some(Duration::from_secs(5));
                service.set_read_timeout(patience).expect("a socket");
                let to = service.local_addr().expect("it was bound");
                let client = UdpSocket::bind("[::]:0").expect("a free port");
                client.send_to(b"?", to).expect("the address is here");
                let mut buffer = [0; 1];
                let (_, from) = service.recv_from(&mut buffer).expect("what was sent");
                service.send_to(b"!", from).expect("the address may answer");

                // The kernel says nothing more of an address that it is still at work on.
                settle(&mut monitor).await;
                for seconds in [60, 89, 90] {
                    let longer = Duration::from_secs(seconds);
                    manager.add(ifindex, vip, longer).await.expect("a renewal");
                    let address = ipv6_address(vip).expect("it is on");
                    assert_eq!(address["prefixlen"], 128);
                    for flag in ["nodad", "noprefixroute", "deprecated", "dynamic"] {
                        assert_eq!(address[flag], true, "{flag}: {address}");
                    }
                    assert_eq!(address.get("tentative"), None);
                    assert_eq!(address["preferred_life_time"], 0);
                    let left = address["valid_life_time"].as_u64();
                    assert!(
                        left == Some(seconds) || left == Some(seconds - 1),
                        "{left:?}"
                    );
                }
                assert!(
                    !fires(&mut monitor).await,
                    "it went, or somebody else's came"
                );
                let routes = ip("-6 route show");
                assert!(!routes.contains(&vip.to_string()), "{routes}");

                sendable(manager.remove(ifindex, vip))
                    .await
                    .expect("it was there");
                assert!(fires(&mut monitor).await, "at its removal");
                assert_eq!(ipv6_address(vip), None);
                manager.remove(ifindex, vip).await.expect("not there: fine");
            }
        });
    });
}

#[test]
fn what_the_host_begins_is_not_sent_from_a_shared_ipv6_address() {
    staged(|ifindex| {
        ip("addr add fd00::7/64 dev va nodad");
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let lifetime = Duration::from_secs(9);
            manager
                .add(ifindex, VIP6, lifetime)
                .await
                .expect("root may");
        });
        let source = |from: IpAddr| {
            let socket = UdpSocket::bind((from, 0)).expect("a free port");
            socket.connect("[fd00::1:9]:9").expect("there is a route");
            socket.local_addr().expect("it is connected").ip()
        };
        // The nearest of all addresses, but for its being deprecated.
        let unspecified = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        assert_eq!(source(unspecified).to_string(), "fd00::7");
        assert_eq!(source(VIP6), VIP6, "whoever asks for it has it");
        // A limit that the documentation states: with no other address of the scope it is taken.
        ip("addr del fd00::7/64 dev va");
        ip("route add fd00::/64 dev va");
        assert_eq!(source(unspecified), VIP6);
    });
}

/// Whether `va` listens to the solicited-node group of `address` (RFC 4291 §2.7.1).
fn listens_for(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else {
        unreachable!()
    };
    let [.., a, b, c] = v6.octets();
    let group = format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let groups = fs::read_to_string("/proc/thread-self/net/igmp6").expect("the kernel has IPv6");
    let is_it = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some("va") && columns.next() == Some(&*group)
    };
    groups.lines().any(is_it)
}

#[test]
fn the_solicited_node_group_is_joined_and_left_with_the_address() {
    staged(|ifindex| {
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            for vip in [VIP6, LINK_LOCAL_VIP] {
                assert!(!listens_for(vip));
                let lifetime = Duration::from_secs(9);
                manager.add(ifindex, vip, lifetime).await.expect("root may");
                assert!(listens_for(vip));
                manager.add(ifindex, vip, lifetime).await.expect("root may");
                assert!(listens_for(vip), "after a renewal");
                manager.remove(ifindex, vip).await.expect("root may");
                assert!(!listens_for(vip));
            }
        });
    });
}

#[test]
fn an_interface_without_ipv6_is_told_with_its_mend() {
    staged(|ifindex| {
        fs::write("/proc/sys/net/ipv6/conf/va/disable_ipv6", "1").expect("root may");
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let lifetime = Duration::from_secs(9);
            let refusal = manager.add(ifindex, VIP6, lifetime).await;
            let refusal = refusal.expect_err("IPv6 is off").to_string();
            assert!(
                refusal.starts_with(
                    "fd00::1:64 cannot be put on interface va: IPv6 is off there; `sysctl -w \
                     net/ipv6/conf/va/disable_ipv6=0`"
                ),
                "{refusal}"
            );
            ip("link add br0 mtu 1200 type bridge");
            let small = if_nametoindex("br0").expect("it was just made");
            let refusal = manager.add(small, VIP6, lifetime).await;
            let refusal = refusal.expect_err("its MTU is too small").to_string();
            assert!(refusal.contains("MTU is below 1280"), "{refusal}");
            run("sysctl", "-w net/ipv6/conf/va/disable_ipv6=0");
            manager.add(ifindex, VIP6, lifetime).await.expect("mended");
        });
    });
}

#[test]
fn an_address_that_is_not_renewed_goes() {
    staged(|ifindex| {
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let second = Duration::from_secs(1);
            for vip in [VIP, VIP6] {
                manager.add(ifindex, vip, second).await.expect("root may");
            }
            assert_eq!(addresses().len(), 1);
            assert!(ipv6_address(VIP6).is_some());
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            assert_eq!(addresses().len(), 0);
            assert_eq!(ipv6_address(VIP6), None);
        });
    });
}

#[test]
fn no_lifetime_is_taken_for_forever() {
    staged(|ifindex| {
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let refusal = manager
                .add(ifindex, VIP, Duration::from_millis(999))
                .await
                .expect_err("no whole second");
            assert!(matches!(refusal, NetError::Lifetime { .. }), "{refusal}");
            assert_eq!(addresses().len(), 0);
            manager
                .add(ifindex, VIP, Duration::MAX)
                .await
                .expect("root may");
            assert_eq!(addresses()[0]["dynamic"], true);
        });
    });
}

#[test]
fn a_refusal_names_interface_address_reason_and_mend() {
    staged(|ifindex| {
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let lifetime = Duration::from_secs(9);
            let gone = manager
                .add(9_999, VIP, lifetime)
                .await
                .expect_err("there is none");
            assert_eq!(
                gone.to_string(),
                "10.0.0.100 cannot be put on interface with index 9999: No such device (os error 19); \
                 it has gone: see `ip link`"
            );
            // SAFETY: it reads no memory. As a bare system call it changes this thread alone, which
            // ends with the test.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, 65_534, -1) };
            assert_eq!(changed, 0);
            let unprivileged = manager
                .add(ifindex, VIP, lifetime)
                .await
                .expect_err("nobody may not");
            assert_eq!(
                unprivileged.to_string(),
                "10.0.0.100 cannot be put on interface va: Operation not permitted (os error 1); run \
                 as root or with CAP_NET_ADMIN"
            );
            let unprivileged = Announcer::open().err().expect("nobody may not");
            assert!(unprivileged.to_string().ends_with("with CAP_NET_RAW"));
        });
    });
}

#[test]
fn orders_go_on_after_the_socket_died() {
    staged(|ifindex| {
        let manager = runtime().block_on(async { AddressManager::open().expect("root may") });
        // The runtime that served the socket is gone.
        runtime().block_on(async {
            let lifetime = Duration::from_secs(9);
            manager.add(ifindex, VIP, lifetime).await.expect("root may");
            assert_eq!(addresses().len(), 1);
        });
    });
}

#[test]
fn links_are_listed_with_addresses_of_their_own() {
    staged(|ifindex| {
        ip("link set lo up");
        ip("addr add 10.0.0.7/24 dev va");
        ip("addr add fd00::7/64 dev va nodad");
        // One that a person added, whatever else it is.
        ip("addr add fd00::8/128 dev va nodad noprefixroute preferred_lft 0");
        ip("link add br0 type bridge");
        ip("link set vb master br0");
        runtime().block_on(async {
            let manager = AddressManager::open().expect("root may");
            let lifetime = Duration::from_secs(9);
            for vip in [VIP, VIP6, LINK_LOCAL_VIP] {
                manager.add(ifindex, vip, lifetime).await.expect("root may");
            }
            settle(&mut LinkMonitor::open().expect("a socket")).await;
            let all = sendable(links()).await.expect("anybody may");
            let find = |name: &str| all.iter().find(|link| link.name == name).expect("listed");
            let mut va = find("va").clone();
            va.addresses.sort();
            va.shared.sort();
            let addresses = [
                "10.0.0.7/24",
                "fd00::7/64",
                "fd00::8/128",
                // The kernel's own, of its MAC.
                "fe80::ff:fe00:1/64",
            ];
            let expected = Link {
                name: "va".to_owned(),
                ifindex,
                mac: MAC,
                up: true,
                loopback: false,
                master: None,
                master_kind: String::new(),
                kind: "veth".to_owned(),
                lower: Some(find("vb").ifindex),
                addresses: addresses.map(|own| own.parse().expect("a subnet")).into(),
                shared: vec![VIP, VIP6, LINK_LOCAL_VIP],
                dad_failed: Vec::new(),
            };
            assert_eq!(va, expected);
            assert_eq!(find("vb").master, Some(find("br0").ifindex));
            assert_eq!(find("vb").master_kind, "bridge");
            assert_eq!(find("br0").kind, "bridge");
            let lo = find("lo");
            assert!(lo.up && lo.loopback && lo.mac == [0; 6], "{lo:?}");
            assert!(!find("br0").up);

            // Still switched on, but without a carrier.
            ip("link set vb down");
            settle(&mut LinkMonitor::open().expect("a socket")).await;
            let all = links().await.expect("anybody may");
            assert!(!all.iter().any(|link| link.name == "va" && link.up));
        });
    });
}

#[test]
fn an_address_that_failed_duplicate_address_detection_is_told_apart() {
    staged(|_| {
        // Each end has a MAC of its own, so `vb` answers for it.
        ip("addr add fd00::1:64/128 dev vb nodad");
        ip("addr add fd00::1:65/128 dev vb nodad");
        fs::write("/proc/sys/net/ipv6/conf/va/accept_dad", "1").expect("root may");
        runtime().block_on(async {
            let mut monitor = LinkMonitor::open().expect("anybody may");
            settle(&mut monitor).await;
            // For ever: the kernel leaves it, and says that it failed.
            ip("addr add fd00::1:64/128 dev va");
            // For a while: the kernel takes it off.
            ip("addr add fd00::1:65/128 dev va valid_lft 60 preferred_lft 0");
            let mut removed = Vec::new();
            let start = Instant::now();
            let failed = loop {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "no failure: {removed:?}"
                );
                if let Ok(more) = timeout(QUIET, monitor.changed()).await {
                    removed.extend(more);
                }
                let links = links().await.expect("anybody may");
                let va = links
                    .into_iter()
                    .find(|link| link.name == "va")
                    .expect("listed");
                if !va.dad_failed.is_empty() && !removed.is_empty() {
                    assert_eq!(va.shared, [] as [IpAddr; 0]);
                    assert!(
                        !va.addresses
                            .iter()
                            .any(|own| own.addr().to_string() == "fd00::1:64")
                    );
                    break va.dad_failed;
                }
            };
            assert_eq!(failed.len(), 1);
            assert_eq!(failed[0].to_string(), "fd00::1:64");
            assert_eq!(removed[0].ip.to_string(), "fd00::1:65");
            assert!(
                removed[0].by.contains("duplicate address detection"),
                "{removed:?}"
            );
        });
    });
}

#[test]
fn many_links_are_listed_whole() {
    staged(|_| {
        for n in 0..150 {
            ip(&format!("link add br{n} type bridge"));
        }
        runtime().block_on(async {
            let all = links().await.expect("anybody may");
            assert_eq!(all.len(), 153, "150 bridges, va, vb, lo");
        });
    });
}

/// Waits until nothing has changed for a while.
async fn settle(monitor: &mut LinkMonitor) {
    while timeout(QUIET, monitor.changed()).await.is_ok() {}
}

async fn fires(monitor: &mut LinkMonitor) -> bool {
    timeout(QUIET, sendable(monitor.changed())).await.is_ok()
}

#[test]
fn the_monitor_hears_changes_but_not_our_own_renewals() {
    staged(|ifindex| {
        runtime().block_on(async {
            let mut monitor = LinkMonitor::open().expect("anybody may");
            settle(&mut monitor).await;
            let manager = AddressManager::open().expect("root may");
            for seconds in [9, 10, 11] {
                let lifetime = Duration::from_secs(seconds);
                for vip in [VIP, VIP6] {
                    manager.add(ifindex, vip, lifetime).await.expect("root may");
                }
            }
            assert!(!fires(&mut monitor).await, "at our own renewals");
            ip("addr add 10.0.0.7/24 dev va");
            assert!(fires(&mut monitor).await, "at an address");
            ip("link add br0 type bridge");
            assert!(fires(&mut monitor).await, "at a new interface");
            settle(&mut monitor).await;
            for vip in [VIP, VIP6] {
                ip(&format!("addr del {vip} dev va"));
                let removed = timeout(QUIET, monitor.changed()).await.expect("a removal");
                let [Removed { ip, by, .. }] = &removed[..] else {
                    panic!("{removed:?}");
                };
                assert_eq!((*ip, removed[0].ifindex), (vip, ifindex));
                let culprit = if vip.is_ipv4() { "process" } else { "somebody" };
                assert!(by.contains(culprit), "{by}");
            }
        });
    });
}

#[test]
fn a_burst_is_one_change() {
    staged(|_| {
        runtime().block_on(async {
            let mut monitor = LinkMonitor::open().expect("anybody may");
            settle(&mut monitor).await;
            for n in 1..=10 {
                ip(&format!("addr add 10.0.1.{n}/24 dev va"));
            }
            assert!(fires(&mut monitor).await);
            assert!(!fires(&mut monitor).await, "a second time");
        });
    });
}

#[test]
fn the_monitor_outlives_an_overflow() {
    staged(|_| {
        runtime().block_on(async {
            let mut monitor = LinkMonitor::open().expect("anybody may");
            settle(&mut monitor).await;
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            let mut batch = String::new();
            for _ in 0..2_000 {
                batch.push_str("addr add 10.0.1.1/24 dev va\naddr del 10.0.1.1/24 dev va\n");
            }
            fs::write(file.path(), batch).expect("a temporary file");
            ip(&format!("-batch {}", file.path().display()));
            // The ninth column counts what a socket had no room for.
            let sockets = fs::read_to_string("/proc/thread-self/net/netlink").expect("procfs");
            let has_dropped = |line: &str| {
                let drops = line.split_whitespace().nth(8);
                drops.is_some_and(|drops| drops.parse::<u32>().is_ok_and(|drops| drops > 0))
            };
            assert!(sockets.lines().any(has_dropped), "no overflow:\n{sockets}");
            assert!(fires(&mut monitor).await, "at the overflow");
            settle(&mut monitor).await;
            ip("addr add 10.0.0.7/24 dev va");
            assert!(fires(&mut monitor).await, "afterwards");
        });
    });
}

#[test]
fn a_dead_monitor_is_reopened_however_often_it_is_asked() {
    staged(|_| {
        runtime().block_on(async {
            let mut monitor = LinkMonitor::open().expect("anybody may");
            settle(&mut monitor).await;
            monitor.break_socket();
            let start = Instant::now();
            while !fires(&mut monitor).await {
                assert!(start.elapsed() < Duration::from_secs(3), "never reopened");
            }
            ip("addr add 10.0.0.7/24 dev va");
            assert!(fires(&mut monitor).await, "afterwards");
        });
    });
}

#[test]
fn an_announcement_goes_out_in_all_its_forms() {
    staged(|ifindex| {
        let protocol = SockProtocol::EthAll;
        let ear = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::empty(),
            protocol,
        )
        .expect("root may");
        setsockopt(&ear, ReceiveTimeout, &TimeVal::new(5, 0)).expect("a socket");
        let mut announcer = Announcer::open().expect("root may");
        for vip in [VIP, VIP6] {
            announcer.send(ifindex, MAC, vip).expect("nothing forbids");
        }
        fs::write("/proc/sys/net/ipv6/conf/va/forwarding", "1").expect("root may");
        announcer.send(ifindex, MAC, VIP6).expect("nothing forbids");

        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (VIP, VIP6) else {
            unreachable!()
        };
        let mut wanted = vec![
            gratuitous_arp(MAC, v4, ArpOperations::Request),
            gratuitous_arp(MAC, v4, ArpOperations::Reply),
            unsolicited_advertisement(MAC, v6, false),
            unsolicited_advertisement(MAC, v6, true),
        ];
        let mut buffer = [0; 2_048];
        while !wanted.is_empty() {
            let length = recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a frame");
            wanted.retain(|frame| frame != &buffer[..length]);
        }
    });
}

#[test]
fn a_neighbour_that_knew_another_mac_believes_an_announcement() {
    staged(|ifindex| {
        for address in ["10.0.0.7/24", "fd00::7/64"] {
            ip(&format!("addr add {address} dev vb"));
        }
        // One that changed less than a second ago would be left as it is (`locktime`).
        run("sysctl", "-w net/ipv4/neigh/vb/locktime=0");
        let mut announcer = Announcer::open().expect("root may");
        for vip in [VIP, VIP6] {
            let old = "lladdr 02:00:00:00:00:99 nud reachable";
            ip(&format!("neigh replace {vip} dev vb {old}"));
            announcer.send(ifindex, MAC, vip).expect("nothing forbids");
            let start = Instant::now();
            loop {
                let known = ip(&format!("neigh show {vip} dev vb"));
                if known.contains("02:00:00:00:00:01") {
                    assert!(!known.contains("router"), "{known}");
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(5), "{known}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
}

#[test]
fn the_announcer_listens_to_nothing() {
    staged(|_| {
        let _announcer = Announcer::open().expect("root may");
        let sockets = fs::read_to_string("/proc/thread-self/net/packet").expect("procfs");
        let lines: Vec<&str> = sockets.lines().skip(1).collect();
        let [only] = lines[..] else {
            panic!("one socket, but: {sockets}");
        };
        assert_eq!(only.split_whitespace().nth(3), Some("0000"), "protocol");
        let link: Value = serde_json::from_str(&ip("-j -d link show dev va")).expect("JSON");
        assert_eq!(link[0]["promiscuity"], 0);
    });
}

#[test]
fn a_closed_gate_is_told_apart_from_a_broken_interface() {
    staged(|ifindex| {
        let mut announcer = Announcer::open().expect("root may");
        // A queue that takes nothing answers as a TC program does that drops.
        run("tc", "qdisc add dev va root pfifo limit 0");
        for vip in [VIP6, VIP] {
            let dropped = announcer.send(ifindex, MAC, vip).expect_err("dropped");
            assert!(matches!(dropped, AnnounceError::GateClosed { .. }));
        }
        let dropped = announcer.send(ifindex, MAC, VIP).expect_err("dropped");
        assert_eq!(
            dropped.to_string(),
            "10.0.0.100 was not announced on interface va: its gate is closed"
        );
        ip("link set va down");
        let down = announcer.send(ifindex, MAC, VIP).expect_err("down");
        let AnnounceError::Send { why, .. } = &down else {
            panic!("{down}");
        };
        assert_eq!(why.kind(), io::ErrorKind::NetworkDown);
        ip("link del va");
        let gone = announcer.send(ifindex, MAC, VIP).expect_err("gone");
        assert!(gone.to_string().contains("it has gone"), "{gone}");
    });
}
