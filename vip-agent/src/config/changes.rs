//! What a running agent can take up of a new configuration, and what only a start can.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Config, InterfaceConfig};

impl Config {
    /// Where `new` differs from this in what only a start can take up; a text for each, which names the key. All
    /// else can be taken up by an agent that runs.
    pub fn changes_needing_restart(&self, new: &Self) -> Vec<String> {
        let (old_etcd, new_etcd) = (&self.etcd, &new.etcd);
        let keys = [
            ("node", self.node != new.node),
            ("etcd.endpoints", old_etcd.endpoints != new_etcd.endpoints),
            ("etcd.prefix", old_etcd.prefix != new_etcd.prefix),
            ("etcd.tls", old_etcd.tls != new_etcd.tls),
            ("etcd.user", old_etcd.user != new_etcd.user),
            ("lease.ttl", self.lease_ttl != new.lease_ttl),
            ("state-dir", self.state_dir != new.state_dir),
            ("bpf-dir", self.bpf_dir != new.bpf_dir),
        ];
        let keys = keys.iter().filter(|(_, differs)| *differs);
        let keys = keys.map(|(key, _)| (*key).to_owned());
        keys.chain(self.changes_of_interfaces(new))
            .chain(self.moves(new))
            .collect()
    }

    /// Programs are attached before a node takes part, and the maps are opened at the start, if there is a
    /// gate to be put in them.
    fn changes_of_interfaces(&self, new: &Self) -> Vec<String> {
        let has_gates = self.interfaces.iter().any(InterfaceConfig::is_fenced);
        let change = |one: &InterfaceConfig| {
            let old = self.interfaces.iter().find(|old| old.name == one.name);
            match old {
                Some(old) if old.dataplane != one.dataplane => {
                    Some(format!("dataplane of interface {}", one.name))
                }
                None if one.is_fenced() && !has_gates => Some(format!(
                    "interface {}, the first without `dataplane: kernel`",
                    one.name
                )),
                _ => None,
            }
        };
        new.interfaces.iter().filter_map(change).collect()
    }

    /// Shared IPs that are on another interface: a gate and an address are one interface's, and would have to be in
    /// two places while the one is given up.
    fn moves(&self, new: &Self) -> Vec<String> {
        let (old, new) = (self.interfaces_of_vips(), new.interfaces_of_vips());
        let moved = |(vip, to): (&IpAddr, &&str)| {
            let from = old.get(vip).filter(|from| *from != to)?;
            Some(format!("vip {vip}, from interface {from} to {to}"))
        };
        new.iter().filter_map(moved).collect()
    }

    fn interfaces_of_vips(&self) -> BTreeMap<IpAddr, &str> {
        let interfaces = self.interfaces.iter();
        interfaces
            .flat_map(|one| one.ips().map(move |ip| (ip, one.name.as_str())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{Flags, file},
        *,
    };

    const OLD: &str = "\
node: cp-1
etcd: { endpoints: [http://10.0.0.11:2379], prefix: /vip-agent }
lease: { ttl: 3s }
on-stop: release
interfaces:
  - { interface: eth0, dataplane: auto, vips: [{ ip: 10.0.0.100 }, { ip: fd00::100 }] }
  - { interface: eth1, dataplane: kernel, vips: [{ ip: 10.1.0.100 }] }
state-dir: /run/a
bpf-dir: /nowhere/a
";

    fn read(text: &str) -> Config {
        let path = Path::new("a.yaml");
        let file = file::parse(path, text).expect("it is YAML");
        Config::from_parts(path, file, &Flags::default()).expect("it is good")
    }

    fn changes(replaced: &str, by: &str) -> Vec<String> {
        assert!(OLD.contains(replaced), "{replaced}");
        read(OLD).changes_needing_restart(&read(&OLD.replacen(replaced, by, 1)))
    }

    #[test]
    fn what_only_a_start_can_take_up_is_named() {
        for (replaced, by, expected) in [
            ("cp-1", "cp-2", "node"),
            ("10.0.0.11:", "10.0.0.12:", "etcd.endpoints"),
            ("/vip-agent", "/other", "etcd.prefix"),
            ("ttl: 3s", "ttl: 4s", "lease.ttl"),
            ("/run/a", "/run/b", "state-dir"),
            ("/nowhere/a", "/nowhere/b", "bpf-dir"),
            ("auto", "tc", "dataplane of interface eth0"),
            ("kernel", "tc", "dataplane of interface eth1"),
        ] {
            assert_eq!(changes(replaced, by), [expected]);
        }
        let swapped = OLD
            .replacen("10.0.0.100", "10.9.0.100", 1)
            .replacen("10.1.0.100", "10.0.0.100", 1)
            .replacen("10.9.0.100", "10.1.0.100", 1);
        assert_eq!(
            read(OLD).changes_needing_restart(&read(&swapped)),
            [
                "vip 10.0.0.100, from interface eth0 to eth1",
                "vip 10.1.0.100, from interface eth1 to eth0"
            ]
        );
        let both = OLD.replace("cp-1", "cp-2").replace("3s", "4s");
        let both = read(OLD).changes_needing_restart(&read(&both));
        assert_eq!(both, ["node", "lease.ttl"]);
    }

    #[test]
    fn what_a_running_agent_can_take_up_is_not() {
        for (replaced, by) in [
            ("{ ip: 10.0.0.100 }, ", ""),
            (
                "{ ip: 10.0.0.100 }",
                "{ ip: 10.0.0.100, priority: 7, group: web }",
            ),
            (
                "{ ip: 10.0.0.100 }",
                "{ ip: 10.0.0.100 }, { ip: 10.0.0.101 }",
            ),
            ("dataplane: auto", "probe: off"),
            (
                "on-stop: release",
                "on-stop: hold\non-conflict: yield\npreempt: 30s\nrebalance: 60s\nwhen-all-unfit: release\n\
                 hooks: { conflict: [/bin/true] }",
            ),
            (
                "interfaces:",
                "interfaces:\n  - { interface: eth2, vip: { ip: 10.2.0.100 } }",
            ),
        ] {
            assert_eq!(changes(replaced, by), [] as [String; 0], "{by}");
        }
        let without = OLD.lines().filter(|line| !line.contains("eth0"));
        let without = without.collect::<Vec<_>>().join("\n");
        assert_eq!(
            read(OLD).changes_needing_restart(&read(&without)),
            [] as [String; 0]
        );
    }

    #[test]
    fn the_first_gate_needs_maps_to_lie_in() {
        let unfenced = OLD.replace("auto", "kernel");
        let gated = unfenced.replace(
            "interfaces:",
            "interfaces:\n  - { interface: eth2, vip: { ip: 10.2.0.100 } }",
        );
        assert_eq!(
            read(&unfenced).changes_needing_restart(&read(&gated)),
            ["interface eth2, the first without `dataplane: kernel`"]
        );
    }
}
