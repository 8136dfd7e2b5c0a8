//! What is read from a good file, and the line that each bad one gets.

use ipnet::IpNet;

use super::*;

const GOOD: &str = "\
node: cp-1
etcd:
  endpoints: [http://10.0.0.11:2379]
lease: { ttl: 2s }
interfaces:
  - interface: eth0
    vip: { ip: 10.0.0.100 }
";

fn read(text: &str) -> Result<Config, ConfigError> {
    let path = Path::new("a.yaml");
    Config::from_parts(path, file::parse(path, text)?, &Flags::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("an address with its network")
}

fn flags(interface: &str, vip: &str) -> Flags {
    Flags {
        interface: Some(interface.to_owned()),
        vip: vec![vip.to_owned()],
        ..Flags::default()
    }
}

#[test]
fn a_good_file_says_what_it_says() {
    let config = read(GOOD).expect("it is good");
    assert_eq!(config.node, "cp-1");
    assert_eq!(config.etcd.endpoints, ["http://10.0.0.11:2379"]);
    assert_eq!(config.etcd.prefix, "/vip-agent");
    assert_eq!(config.lease_ttl, Duration::from_secs(2));
    assert_eq!(config.on_stop, OnStop::Release);
    assert_eq!(config.on_conflict, OnConflict::Defend);
    assert_eq!(config.state_dir, Path::new("/run/vip-agent"));
    assert_eq!(config.bpf_dir, Path::new("/sys/fs/bpf/vip-agent"));
    let interface = InterfaceConfig {
        name: "eth0".to_owned(),
        dataplane: DataplaneMode::Auto,
        probe: Probing::On,
        vips: vec![VipConfig::new(IpAddr::from([10, 0, 0, 100]))],
    };
    assert_eq!(config.interfaces, [interface]);
}

#[test]
fn flags_go_before_the_file() {
    let path = Path::new("a.yaml");
    let flags = Flags {
        node: Some("cp-9".to_owned()),
        ttl: Some("5s".to_owned()),
        etcd: vec!["http://10.0.0.12:2379".to_owned()],
        on_stop: Some(OnStop::Hold),
        on_conflict: Some(OnConflict::Yield),
        probe: Some(Probing::Off),
        ..flags("eth1", "10.0.0.200")
    };
    let file = file::parse(path, GOOD).expect("it is good");
    let config = Config::from_parts(path, file, &flags).expect("so are the flags");
    assert_eq!(config.node, "cp-9");
    assert_eq!(config.lease_ttl, Duration::from_secs(5));
    assert_eq!(config.etcd.endpoints, ["http://10.0.0.12:2379"]);
    assert_eq!(config.on_stop, OnStop::Hold);
    assert_eq!(config.on_conflict, OnConflict::Yield);
    assert_eq!(config.interfaces.len(), 1);
    assert_eq!(config.interfaces[0].probe, Probing::Off);
    assert_eq!(config.interfaces[0].name, "eth1");
}

#[test]
fn what_becomes_of_conflicts_is_read() {
    let text = GOOD.replace("    vip:", "    probe: off\n    vip:");
    let config = read(&format!("{text}on-conflict: yield\n")).expect("it is good");
    assert_eq!(config.on_conflict, OnConflict::Yield);
    assert_eq!(config.interfaces[0].probe, Probing::Off);
    assert!(!config.interfaces[0].is_probed());
}

#[test]
fn nobody_asks_where_no_program_hears_the_answer() {
    let text = GOOD.replace("    vip:", "    dataplane: kernel\n    probe: on\n    vip:");
    let config = read(&text.replace("2s", "3s")).expect("it is good");
    assert!(!config.interfaces[0].is_probed());
}

#[test]
fn flags_are_enough() {
    let flags = Flags {
        etcd: vec!["http://10.0.0.11:2379".to_owned()],
        ..flags("eth0", "10.0.0.1")
    };
    let config = Config::load(None, &flags).expect("they are enough");
    assert_eq!(config.lease_ttl, Duration::from_secs(3));
}

#[test]
fn the_flag_of_the_ttl_is_checked_as_the_key_is() {
    for (ttl, says) in [("1s", "2s at least"), ("3", "unit"), ("2500ms", "whole")] {
        let flags = Flags {
            etcd: vec!["http://10.0.0.11:2379".to_owned()],
            ttl: Some(ttl.to_owned()),
            ..flags("eth0", "10.0.0.1")
        };
        let error = Config::load(None, &flags).expect_err(ttl).to_string();
        assert!(
            error.starts_with("--ttl: lease.ttl") && error.contains(says),
            "{error}"
        );
    }
}

/// What to replace in the good file, by what, and the whole line that comes of it.
const BAD: &[(&str, &str, &str)] = &[
    (
        "node: cp-1",
        "node: a/b",
        "a.yaml:1:7: `a/b` is no node name; write 1 to 253 letters, digits, `.`, `_` or `-`",
    ),
    (
        "lease:",
        "leese:",
        "a.yaml:4:1: unknown key `leese`; did you mean `lease`? known here: node, etcd, lease, on-stop, on-conflict, preempt, rebalance, when-all-unfit, hooks, interfaces, state-dir, bpf-dir",
    ),
    (
        "ttl: 2s",
        "ttl: 0s",
        "a.yaml:4:15: lease.ttl `0s`: etcd grants 2s at least (one and a half of its election timeout); write 2s or more",
    ),
    (
        "ttl: 2s",
        "ttl: 1s",
        "a.yaml:4:15: lease.ttl `1s`: etcd grants 2s at least (one and a half of its election timeout); write 2s or more",
    ),
    (
        "ttl: 2s",
        "ttl: 2500ms",
        "a.yaml:4:15: lease.ttl `2500ms`: etcd counts whole seconds; write such as 2s or 3s",
    ),
    (
        "ttl: 2s",
        "ttl: 3",
        "a.yaml:4:15: lease.ttl `3`: write a time with its unit, such as 3s",
    ),
    (
        "ttl: 2s",
        "ttl: 2h",
        "a.yaml:4:15: lease.ttl `2h`: it is over an hour; so long would a shared IP be nobody's after its owner died",
    ),
    (
        "eth0",
        "eth0/1",
        "a.yaml:6:16: interface `eth0/1`: the name holds a slash, a colon or a blank; write one that `ip link` shows",
    ),
    (
        "eth0",
        "a-name-far-too-long",
        "a.yaml:6:16: interface `a-name-far-too-long`: the name is too long; Linux allows 15 characters",
    ),
    (
        "eth0",
        "lo",
        "a.yaml:6:16: interface `lo`: the loopback has no neighbours; name the interface of the network",
    ),
    (
        "10.0.0.100",
        "10.0.0.256",
        "a.yaml:7:16: vip `10.0.0.256`: this is no IP address; write such as 192.168.0.15 or fd00::15",
    ),
    (
        "10.0.0.100",
        "10.0.0.0/24",
        "a.yaml:7:16: vip `10.0.0.0/24`: write the plain address, without a prefix length",
    ),
    (
        "10.0.0.100",
        "'::'",
        "a.yaml:7:16: vip `::`: this is the unspecified address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "'::1'",
        "a.yaml:7:16: vip `::1`: this is the loopback address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "ff02::1:ff00:100",
        "a.yaml:7:16: vip `ff02::1:ff00:100`: this is a multicast address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "'::ffff:10.0.0.100'",
        "a.yaml:7:16: vip `::ffff:10.0.0.100`: this is IPv4 in the guise of IPv6, to be written 10.0.0.100; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "'::10.0.0.100'",
        "a.yaml:7:16: vip `::10.0.0.100`: this is IPv4-compatible (::/96), which is no longer used; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "fd00::100/64",
        "a.yaml:7:16: vip `fd00::100/64`: write the plain address, without a prefix length",
    ),
    (
        "10.0.0.100",
        "fe80::1%eth0",
        "a.yaml:7:16: vip `fe80::1%eth0`: write the plain address, without `%eth0`; its interface is the one that `interface` names",
    ),
    (
        "10.0.0.100",
        "'[fd00::1]'",
        "a.yaml:7:16: vip `[fd00::1]`: write the plain address, without brackets",
    ),
    (
        "10.0.0.100",
        "fd00::1::2",
        "a.yaml:7:16: vip `fd00::1::2`: this is no IP address; write such as 192.168.0.15 or fd00::15",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vips: [{ ip: fd00::7 }, { ip: 'FD00:0::0007' }]",
        "a.yaml:7:35: vip fd00::7 is given twice, first at a.yaml:7:18; leave one of them",
    ),
    (
        "10.0.0.100",
        "239.1.1.1",
        "a.yaml:7:16: vip `239.1.1.1`: this is a multicast address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "127.0.0.1",
        "a.yaml:7:16: vip `127.0.0.1`: this is a loopback address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "0.0.0.0",
        "a.yaml:7:16: vip `0.0.0.0`: this is of \"this network\" (0.0.0.0/8); give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "255.255.255.255",
        "a.yaml:7:16: vip `255.255.255.255`: this is the broadcast address; give a free host address of the interface's network",
    ),
    (
        "10.0.0.100",
        "250.1.1.1",
        "a.yaml:7:16: vip `250.1.1.1`: this is reserved (240.0.0.0/4); give a free host address of the interface's network",
    ),
    (
        "[http://10.0.0.11:2379]",
        "[]",
        "etcd.endpoints: there is none; give at least one, such as http://10.0.0.11:2379",
    ),
    (
        "http://10.0.0.11:2379",
        "'10.0.0.11:2379'",
        "a.yaml:3:15: endpoint `10.0.0.11:2379`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "http://10.0.0.11",
        "a.yaml:3:15: endpoint `http://10.0.0.11`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "https://10.0.0.11:2379",
        "a.yaml:3:15: endpoint `https://10.0.0.11:2379`: https needs `etcd.tls` with the `ca` that signed the servers' certificates",
    ),
    (
        "http://10.0.0.11:2379",
        "http://10.0.0.100:2379",
        "a.yaml:3:15: endpoint `http://10.0.0.100:2379`: 10.0.0.100 is a shared IP of this very agent, which needs etcd first; name a member's own address",
    ),
    (
        "lease:",
        "on-conflict: fight\nlease:",
        "a.yaml:4:14: on-conflict `fight`: write defend, yield",
    ),
    (
        "    vip:",
        "    probe: maybe\n    vip:",
        "a.yaml:7:12: probe `maybe`: write on, off",
    ),
    (
        "lease:",
        "on-stop: explode\nlease:",
        "a.yaml:4:10: on-stop `explode`: write release, hold",
    ),
    (
        "    vip:",
        "    dataplane: dpdk\n    vip:",
        "a.yaml:7:16: dataplane `dpdk`: write auto, native, generic, tc, kernel",
    ),
    (
        "    vip:",
        "    dataplane: kernel\n    vip:",
        "a.yaml:4:15: lease.ttl `2s`: interface eth0 has `dataplane: kernel`, which needs at least 3s",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vips: []",
        "a.yaml:6:16: interface `eth0`: it has no shared IP; add `vip: { ip: … }`",
    ),
    (
        "    vip:",
        "    vips: [{ ip: 10.0.0.7 }]\n    vip:",
        "a.yaml:6:16: interface eth0: `vip` and `vips` are both given; give one",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vips: [{ ip: 10.0.0.7 }, { ip: 10.0.0.7 }]",
        "a.yaml:7:36: vip 10.0.0.7 is given twice, first at a.yaml:7:18; leave one of them",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vip: { ip: 10.0.0.100 }\n  - interface: eth0\n    vip: { ip: 10.0.0.101 }",
        "a.yaml:8:16: interface eth0 is given twice, first at a.yaml:6:16; put its shared IPs together in `vips`",
    ),
    (
        "lease:",
        "  prefix: vip\nlease:",
        "a.yaml:4:11: prefix `vip`: it must start with a slash and not end with one, as /vip-agent does",
    ),
    (
        "lease:",
        "  user: { name: vip, password-file: /nowhere/p }\nlease:",
        "a.yaml:4:37: `/nowhere/p` cannot be read: No such file or directory (os error 2)",
    ),
    (
        "cp-1",
        "\"a\\nb\"",
        "a.yaml:1:7: `a\\nb` is no node name; write 1 to 253 letters, digits, `.`, `_` or `-`",
    ),
    (
        "lease:",
        "frobnicate: 1\nlease:",
        "a.yaml:4:1: unknown key `frobnicate`; known here: node, etcd, lease, on-stop, on-conflict, preempt, rebalance, when-all-unfit, hooks, interfaces, state-dir, bpf-dir",
    ),
    (
        "    vip:",
        "    VIP:",
        "a.yaml:7:5: unknown key `VIP`; did you mean `vip`? known here: interface, dataplane, probe, health, vip, vips",
    ),
    (
        "lease:",
        "node: cp-2\nlease:",
        "a.yaml:4:1: the key `node` is given twice; leave one of them, in `node: cp-2`",
    ),
    (
        "vip: { ip: 10.0.0.100 }",
        "vip: 10.0.0.100",
        "a.yaml:7:10: expected `key: value` pairs, in `vip: 10.0.0.100`; write `vip: { ip: 10.0.0.100 }`",
    ),
    (
        "{ ip: 10.0.0.100 }",
        "{}",
        "a.yaml:7:10: the key `ip` is missing, in `vip: {}`",
    ),
    (
        "10.0.0.100",
        "~",
        "a.yaml:7:16: the value is missing, in `vip: { ip: ~ }`",
    ),
    (
        "[http://10.0.0.11:2379]",
        "http://10.0.0.11:2379",
        "a.yaml:3:14: expected a list, such as [a, b], in `endpoints: http://10.0.0.11:2379`; write `endpoints: [http://10.0.0.11:2379]`",
    ),
    (
        "ttl: 2s",
        "ttl: soon",
        "a.yaml:4:15: lease.ttl `soon`: write a time with its unit, such as 3s",
    ),
    (
        "eth0",
        "''",
        "a.yaml:6:16: interface ``: the name is empty; write one that `ip link` shows",
    ),
    (
        "eth0",
        "..",
        "a.yaml:6:16: interface `..`: Linux has no such name; write one that `ip link` shows",
    ),
    (
        "eth0",
        "'eth0 a'",
        "a.yaml:6:16: interface `eth0 a`: the name holds a slash, a colon or a blank; write one that `ip link` shows",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vip: { ip: 10.0.0.100 }\n  - interface: eth1\n    vip: { ip: 10.0.0.100 }",
        "a.yaml:9:16: vip 10.0.0.100 is given twice, first at a.yaml:7:16; leave one of them",
    ),
    (
        "http://10.0.0.11:2379",
        "http://10.0.0.11:+2379",
        "a.yaml:3:15: endpoint `http://10.0.0.11:+2379`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "'http://me@10.0.0.100:2379'",
        "a.yaml:3:15: endpoint `http://me@10.0.0.100:2379`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "'http://a b:2379'",
        "a.yaml:3:15: endpoint `http://a b:2379`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "'http://fd00::1:2379'",
        "a.yaml:3:15: endpoint `http://fd00::1:2379`: write http://HOST:PORT or https://HOST:PORT",
    ),
    (
        "http://10.0.0.11:2379",
        "'http://[::ffff:10.0.0.100]:2379'",
        "a.yaml:3:15: endpoint `http://[::ffff:10.0.0.100]:2379`: 10.0.0.100 is a shared IP of this very agent, which needs etcd first; name a member's own address",
    ),
    (
        "lease:",
        "  tls: { ca: /nowhere/ca }\nlease:",
        "a.yaml:3:15: endpoint `http://10.0.0.11:2379`: `etcd.tls` is given, so write https",
    ),
    (
        "http://10.0.0.11:2379]",
        "https://10.0.0.11:2379]\n  tls: { ca: / }",
        "a.yaml:4:14: `/` cannot be read: it is a directory",
    ),
    (
        "http://10.0.0.11:2379]",
        "https://10.0.0.11:2379]\n  tls: { ca: '' }",
        "a.yaml:4:14: `` cannot be read: No such file or directory (os error 2)",
    ),
    (
        "lease:",
        "  prefix: /vip/\nlease:",
        "a.yaml:4:11: prefix `/vip/`: it must start with a slash and not end with one, as /vip-agent does",
    ),
    (
        "lease:",
        "ttl: 2s\nlease:",
        "a.yaml:4:1: unknown key `ttl`; it belongs under `lease`: `lease: { ttl: 3s }`; known here: node, etcd, lease, on-stop, on-conflict, preempt, rebalance, when-all-unfit, hooks, interfaces, state-dir, bpf-dir",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vip:\n    ip: 10.0.0.100",
        "a.yaml:8:5: unknown key `ip`; it belongs under `vip`: `vip: { ip: 10.0.0.100 }`; known here: interface, dataplane, probe, health, vip, vips",
    ),
    (
        "lease:",
        "  on-stop: hold\nlease:",
        "a.yaml:4:3: unknown key `on-stop`; it belongs at the top, not indented; known here: endpoints, prefix, tls, user",
    ),
    (
        "  - interface: eth0",
        "  - name: eth0",
        "a.yaml:6:5: unknown key `name`; did you mean `interface`? known here: interface, dataplane, probe, health, vip, vips",
    ),
    (
        "  - interface: eth0\n    vip",
        "  interface: eth0\n  vip",
        "a.yaml:6:3: expected a list, such as [a, b], in `interface: eth0`; write `interfaces: [{ interface: eth0, vip: { ip: 10.0.0.100 } }]`",
    ),
    (
        "  - interface: eth0\n    vip: { ip: 10.0.0.100 }",
        "- eth0",
        "a.yaml:6:3: expected `key: value` pairs, in `- eth0`; write `interfaces: [{ interface: eth0, vip: { ip: 10.0.0.100 } }]`",
    ),
    (
        "lease: { ttl: 2s }",
        "lease: 2s",
        "a.yaml:4:8: expected `key: value` pairs, in `lease: 2s`; write `lease: { ttl: 3s }`",
    ),
    (
        "    vip:",
        "\tvip:",
        "a.yaml:7:1: a tab indents this line, which YAML does not allow; use blanks",
    ),
    (
        "    vip:",
        "   vip:",
        "a.yaml:7:4: while parsing a block collection, did not find expected '-' indicator (keys that belong together begin in one column), in `vip: { ip: 10.0.0.100 }`",
    ),
    (
        "node: cp-1",
        "node: cp-1\n---",
        "a.yaml:3:1: a second document begins here, after `---`; write one, in `etcd:`",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, priority: 0",
        "a.yaml:7:38: priority `0`: write 1 to 254; the highest goes first",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, priority: 255",
        "a.yaml:7:38: priority `255`: write 1 to 254; the highest goes first",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, priority: +7",
        "a.yaml:7:38: priority `+7`: write 1 to 254; the highest goes first",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, priority: high",
        "a.yaml:7:38: priority `high`: write 1 to 254; the highest goes first",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, group: 'the web'",
        "a.yaml:7:35: group `the web`: write 1 to 63 letters, digits, `.`, `_` or `-`",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, group: ''",
        "a.yaml:7:35: group ``: write 1 to 63 letters, digits, `.`, `_` or `-`",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, group: fd00::1",
        "a.yaml:7:35: group `fd00::1`: an address is no name for a group; write such as web",
    ),
    (
        "    vip: { ip: 10.0.0.100 }",
        "    vip: { ip: 10.0.0.100, group: web }\n  - interface: eth1\n    vip: { ip: fd00::100, group: web, priority: 150 }",
        "a.yaml:9:16: vip fd00::100 has priority 150, and 10.0.0.100 at a.yaml:7:16, of the same group `web`, has 100; they move as one, so give both the same",
    ),
    (
        "lease:",
        "priority: 7\nlease:",
        "a.yaml:4:1: unknown key `priority`; it belongs under `vip`: `vip: { ip: 10.0.0.100 }`; known here: node, etcd, lease, on-stop, on-conflict, preempt, rebalance, when-all-unfit, hooks, interfaces, state-dir, bpf-dir",
    ),
    (
        "ip: 10.0.0.100",
        "ip: 10.0.0.100, prio: 7",
        "a.yaml:7:28: unknown key `prio`; known here: ip, priority, group, health",
    ),
    (
        "lease:",
        "preempt: 500ms\nlease:",
        "a.yaml:4:10: preempt `500ms`: write never, or 1s or more",
    ),
    (
        "lease:",
        "rebalance: always\nlease:",
        "a.yaml:4:12: rebalance `always`: write never, or a time with its unit, such as 30s",
    ),
    (
        "lease:",
        "rebalance: 30\nlease:",
        "a.yaml:4:12: rebalance `30`: write never, or a time with its unit, such as 30s",
    ),
    (
        "lease:",
        "when-all-unfit: panic\nlease:",
        "a.yaml:4:17: when-all-unfit `panic`: write keep, release",
    ),
    (
        "lease:",
        "hooks: { become-owner: [attach] }\nlease:",
        "a.yaml:4:25: hooks.become-owner `attach`: write the program's whole path, such as /usr/local/bin/attach",
    ),
    (
        "lease:",
        "hooks: { become-owner: [/nowhere/attach, --fast] }\nlease:",
        "a.yaml:4:25: hooks.become-owner `/nowhere/attach`: it cannot be run: No such file or directory (os error 2)",
    ),
    (
        "lease:",
        "hooks: { become-owner: [/bin/true --fast] }\nlease:",
        "a.yaml:4:25: hooks.become-owner `/bin/true --fast`: it cannot be run: No such file or directory (os error 2); a program and its arguments are words of their own: [/usr/local/bin/attach, --fast]",
    ),
    (
        "lease:",
        "hooks: { become-follower: [/proc/version] }\nlease:",
        "a.yaml:4:28: hooks.become-follower `/proc/version`: it is not executable; `chmod +x /proc/version`",
    ),
    (
        "lease:",
        "hooks: { conflict: [/usr] }\nlease:",
        "a.yaml:4:21: hooks.conflict `/usr`: it is no file; name a program",
    ),
    (
        "lease:",
        "hooks: { conflict: [/bin/true, \"a\\0b\"] }\nlease:",
        "a.yaml:4:32: hooks.conflict `a\\u{0}b`: take the zero byte out",
    ),
    (
        "lease:",
        "hooks: { conflict: [] }\nlease:",
        "a.yaml:4:20: hooks.conflict: it is empty; write such as [/usr/local/bin/attach, --fast], or leave it out",
    ),
    (
        "lease:",
        "hooks: { become-owner: /bin/true }\nlease:",
        "a.yaml:4:24: expected a list, such as [a, b], in `hooks: { become-owner: /bin/true }`; write `become-owner: [/usr/local/bin/attach, --fast]`",
    ),
    (
        "lease:",
        "hooks: [/bin/true]\nlease:",
        "a.yaml:4:8: expected `key: value` pairs, in `hooks: [/bin/true]`; write `hooks: { become-owner: [/usr/local/bin/attach, --fast] }`",
    ),
    (
        "lease:",
        "hooks: { timeout: 1h }\nlease:",
        "a.yaml:4:19: hooks.timeout `1h`: write 100ms to 10min",
    ),
    (
        "lease:",
        "hooks: { timeout: 10 }\nlease:",
        "a.yaml:4:19: hooks.timeout `10`: write a time with its unit, such as 10s",
    ),
    (
        "lease:",
        "hooks: { become-master: [/bin/true] }\nlease:",
        "a.yaml:4:10: unknown key `become-master`; did you mean `become-owner`? known here: become-owner, become-follower, conflict, timeout",
    ),
    (
        "lease:",
        "conflict: [/bin/true]\nlease:",
        "a.yaml:4:1: unknown key `conflict`; it belongs under `hooks`: `hooks: { become-owner: [/usr/local/bin/attach, --fast] }`; known here: node, etcd, lease, on-stop, on-conflict, preempt, rebalance, when-all-unfit, hooks, interfaces, state-dir, bpf-dir",
    ),
    (
        "lease:",
        "state-dir: run\nlease:",
        "a.yaml:4:12: state-dir `run`: write the whole path, such as /run/vip-agent",
    ),
    (
        "lease:",
        "bpf-dir: /proc\nlease:",
        "a.yaml:4:10: bpf-dir `/proc`: other programs have their pins there too; give a directory below it, such as /sys/fs/bpf/vip-agent",
    ),
    (
        "http://10.0.0.11:2379]",
        "https://10.0.0.11:2379]\n  tls: { ca: Cargo.toml }",
        "a.yaml:4:14: `Cargo.toml` holds no certificate in PEM",
    ),
    (
        "http://10.0.0.11:2379]",
        "https://10.0.0.11:2379]\n  tls: { cert: a, key: b }",
        "a.yaml:4:19: the key `ca` is missing, in `tls: { cert: a, key: b }`",
    ),
    (
        GOOD,
        "node: cp-1\netcd: { endpoints: [http://10.0.0.11:2379] }\n",
        "interfaces: there is none; give at least one with a shared IP, or --interface and --vip",
    ),
];

#[test]
fn a_bad_file_gets_one_line_that_says_what_where_and_what_would_be_right() {
    for (good, bad, line) in BAD {
        assert!(GOOD.contains(good), "{good} is not in the good file");
        let error = read(&GOOD.replacen(good, bad, 1)).expect_err(bad);
        assert_eq!(error.to_string(), *line, "for {bad}");
    }
}

#[test]
fn what_is_no_yaml_is_placed_too() {
    for text in ["etcd: [", "a: b: c", "- x", "node: [1, 2]", "lease: 2s"] {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with("a.yaml:1:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn when_shared_ips_move_and_what_is_run_then_is_read() {
    let config = read(GOOD).expect("it is good");
    assert_eq!((config.preempt, config.rebalance), (None, None));
    assert_eq!(config.when_all_unfit, WhenAllUnfit::Keep);
    assert_eq!(config.hooks, Hooks::default());
    assert_eq!(config.hooks.timeout, Duration::from_secs(10));
    let more = "preempt: 30s\nrebalance: 2min\nwhen-all-unfit: release\nhooks:\n  become-owner: [/bin/sh, -c, 'exit 3']\n  \
                become-follower: [/bin/false]\n  conflict: [/bin/true]\n  timeout: 250ms\n";
    let config = read(&format!("{GOOD}{more}")).expect("it is good");
    assert_eq!(config.preempt, Some(Duration::from_secs(30)));
    assert_eq!(config.rebalance, Some(Duration::from_secs(120)));
    assert_eq!(config.when_all_unfit, WhenAllUnfit::Release);
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    let hooks = Hooks {
        become_owner: words(&["/bin/sh", "-c", "exit 3"]),
        become_follower: words(&["/bin/false"]),
        conflict: words(&["/bin/true"]),
        timeout: Duration::from_millis(250),
    };
    assert_eq!(config.hooks, hooks);
    let never = read(&format!("{GOOD}preempt: never\nrebalance: never\n")).expect("it is good");
    assert_eq!((never.preempt, never.rebalance), (None, None));
}

#[test]
fn a_group_that_is_too_large_is_refused_at_the_first_that_is_too_many() {
    let group_of = |size: usize| {
        let vips = (0..size).map(|at| format!("{{ ip: 10.0.1.{at}, group: web }}"));
        let vips = vips.collect::<Vec<_>>().join(",\n");
        read(&GOOD.replacen("vip: { ip: 10.0.0.100 }", &format!("vips: [\n{vips}]"), 1))
    };
    group_of(LARGEST_GROUP).expect("it is good");
    let error = group_of(LARGEST_GROUP + 2).expect_err("it is too large");
    let place = format!("a.yaml:{}:", 8 + LARGEST_GROUP);
    assert!(error.to_string().starts_with(&place), "{error}");
    assert!(
        error.to_string().ends_with(
            "group `web` has 62 shared IPs; 60 is the most that etcd can move as one, so make it several groups"
        ),
        "{error}"
    );
}

#[test]
fn where_a_shared_ip_should_be_is_read() {
    let good = GOOD.replacen(
        "vip: { ip: 10.0.0.100 }",
        "vips: [{ ip: 10.0.0.100, priority: 254, group: Web-1_a.b }, { ip: fd00::100, priority: '1' }, { ip: fd00::101 }]",
        1,
    );
    let config = read(&good).expect("it is good");
    let [ipv4, low, plain] = &config.interfaces[0].vips[..] else {
        panic!("{:?}", config.interfaces);
    };
    assert_eq!(
        (ipv4.priority, ipv4.group.as_deref()),
        (254, Some("Web-1_a.b"))
    );
    assert_eq!((low.priority, low.group.as_deref()), (1, None));
    assert_eq!(*plain, VipConfig::new(ip("fd00::101")));
    let long = "g".repeat(63);
    let of_group = |name: &str| GOOD.replacen("0.100 }", &format!("0.100, group: {name} }}"), 1);
    read(&of_group(&long)).expect("63 are allowed");
    read(&of_group(&format!("{long}g"))).expect_err("64 are not");
}

#[test]
fn an_endpoint_may_be_a_name_or_an_address_of_either_kind() {
    for endpoint in [
        "http://etcd-1.lan:2379",
        "http://[fd00::1]:2379",
        "http://10.0.0.11:2379/",
    ] {
        let good = GOOD.replacen("http://10.0.0.11:2379", &format!("'{endpoint}'"), 1);
        let config = read(&good).expect(endpoint);
        assert_eq!(config.etcd.endpoints, [endpoint]);
    }
}

#[test]
fn what_a_file_lacks_is_said_of_the_file() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, "").expect("a file can be written");
    let error = Config::load(Some(&file), &Flags::default());
    std::fs::write(&file, [0xff]).expect("a file can be written");
    let no_text = Config::load(Some(&file), &Flags::default());
    let name = file.display();
    assert_eq!(
        error.expect_err("it is empty").to_string(),
        format!(
            "{name}: etcd.endpoints: there is none; give at least one, such as http://10.0.0.11:2379"
        )
    );
    assert_eq!(
        no_text.expect_err("it is no text").to_string(),
        format!("{name} cannot be read: it is not UTF-8 text")
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/a.yaml")), &Flags::default());
    let error = error.expect_err("there is no such file").to_string();
    assert_eq!(
        error,
        "/nowhere/a.yaml cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn what_no_host_of_a_subnet_can_have_is_refused() {
    let own: ipnet::IpNet = "10.0.0.7/24".parse().expect("a subnet");
    let refused =
        |vip: [u8; 4]| check_against_subnet(vip.into(), &[own]).map_err(|e| e.to_string());
    assert_eq!(
        refused([10, 0, 0, 0]),
        Err(
            "vip 10.0.0.0 is the network address of 10.0.0.0/24; choose a host address in it"
                .to_owned()
        )
    );
    assert_eq!(
        refused([10, 0, 0, 255]),
        Err(
            "vip 10.0.0.255 is the broadcast address of 10.0.0.0/24; choose a host address in it"
                .to_owned()
        )
    );
    assert!(refused([10, 0, 0, 7]).is_err_and(|error| error.contains("own address")));
    assert_eq!(refused([10, 0, 0, 100]), Ok(()));
    assert_eq!(
        refused([10, 0, 1, 0]),
        Ok(()),
        "an address of another subnet"
    );
    let pair: ipnet::IpNet = "10.0.0.6/31".parse().expect("a subnet");
    assert_eq!(
        check_against_subnet([10, 0, 0, 7].into(), &[pair]),
        Ok(()),
        "RFC 3021"
    );
}

#[test]
fn what_no_host_of_an_ipv6_network_can_have_is_refused() {
    let own: Vec<IpNet> = ["fd00::7/64", "fe80::7/64", "10.0.0.7/24"].map(net).into();
    let refused = |vip: &str| check_against_subnet(ip(vip), &own).map_err(|e| e.to_string());
    assert_eq!(
        refused("fd00::"),
        Err(
            "vip fd00:: is the Subnet-Router anycast address of fd00::/64; choose a host address in it"
                .to_owned()
        )
    );
    for own in ["fd00::7", "fe80::7"] {
        assert!(refused(own).is_err_and(|error| error.contains("own address")));
    }
    for free in [
        "fd00::8",
        "fe80::8",
        "fd00:0:0:1::",
        "fd00::ffff:ffff:ffff:ffff",
    ] {
        assert_eq!(refused(free), Ok(()), "{free}");
    }
    let pair = [net("fd00::6/127")];
    let last = check_against_subnet(ip("fd00::6"), &[net("fd00::7/127")]);
    assert_eq!(last, Ok(()), "RFC 6164");
    assert_eq!(check_against_subnet(ip("fd00::7"), &pair), Ok(()));
}

#[test]
fn a_link_local_address_of_another_interface_is_another_address() {
    let own = ["fd00::7/64", "fe80::7/64"].map(net);
    let check = |vip: &str| check_against_other(ip(vip), "eth1", &own);
    let refused = check("fd00::7").expect_err("it is taken").to_string();
    assert!(refused.contains("own address on eth1"), "{refused}");
    assert_eq!(check("fe80::7"), Ok(()));
}

#[test]
fn ipv6_addresses_are_taken_however_they_are_spelt() {
    for (written, meant) in [
        ("fd00::64", "fd00::64"),
        ("'FD00:0:0:0:0:0:0:0064'", "fd00::64"),
        ("fe80::64", "fe80::64"),
        ("2001:db8::10.0.0.100", "2001:db8::a00:64"),
    ] {
        let good = GOOD.replacen("10.0.0.100", written, 1);
        let config = read(&good).expect(written);
        assert_eq!(config.interfaces[0].vips, [VipConfig::new(ip(meant))]);
        let flags = Flags {
            etcd: vec!["http://10.0.0.11:2379".to_owned()],
            ..flags("eth0", written.trim_matches('\''))
        };
        let config = Config::load(None, &flags).expect(written);
        assert_eq!(config.interfaces[0].vips, [VipConfig::new(ip(meant))]);
    }
}

#[test]
fn an_endpoint_that_is_a_shared_ipv6_address_is_refused_however_it_is_spelt() {
    let good = GOOD.replacen("10.0.0.100", "fd00::64", 1);
    let bad = good.replacen("http://10.0.0.11:2379", "'http://[fd00:0::0064]:2379'", 1);
    let error = read(&bad).expect_err("it needs itself").to_string();
    assert!(
        error.contains("fd00::64 is a shared IP of this very agent"),
        "{error}"
    );
}

#[test]
fn each_family_has_advice_of_its_own() {
    let advice = |vip: &str, own: &[&str]| {
        let own: Vec<IpNet> = own.iter().map(|own| net(own)).collect();
        advice_on_subnet(ip(vip), "eth0", &own)
    };
    assert_eq!(advice("fd00::64", &["10.0.0.7/24", "fe80::7/64"]), None);
    assert_eq!(advice("10.0.0.100", &["fd00::7/64", "fe80::7/64"]), None);
    assert_eq!(advice("fe80::64", &["fd00::7/64"]), None);
    let text = advice("fd01::64", &["fd00::7/64", "fe80::7/64", "10.0.0.7/24"]);
    assert_eq!(
        text.expect("it is outside"),
        "fd01::64 is in none of eth0's networks (fd00::/64): who has no route to it there sends no \
         Neighbour Solicitation for it"
    );
}

#[test]
fn a_shared_ip_outside_its_interfaces_networks_gets_advice() {
    let own: [ipnet::IpNet; 2] =
        ["10.0.0.7/24", "10.1.0.7/16"].map(|own| own.parse().expect("a subnet"));
    let advice = |vip: [u8; 4], own: &[ipnet::IpNet]| advice_on_subnet(vip.into(), "eth0", own);
    assert_eq!(advice([10, 0, 0, 100], &own), None);
    assert_eq!(advice([10, 1, 2, 3], &own), None);
    assert_eq!(advice([10, 9, 9, 9], &[]), None, "an address may yet come");
    let text = advice([10, 9, 9, 9], &own).expect("it is outside");
    assert!(
        text.starts_with("10.9.9.9 is in none of eth0's networks (10.0.0.0/24, 10.1.0.0/16)"),
        "{text}"
    );
}

#[test]
fn an_address_of_another_interface_is_refused() {
    let own: ipnet::IpNet = "10.0.0.7/24".parse().expect("a subnet");
    let check = |vip: [u8; 4]| check_against_other(vip.into(), "eth1", &[own]);
    let refused = check([10, 0, 0, 7]).expect_err("it is taken").to_string();
    assert!(refused.contains("own address on eth1"), "{refused}");
    assert_eq!(check([10, 0, 0, 255]), Ok(()), "of another network");
}
