//! Taking away what a dead agent left: gates shut first, then the addresses that they guard, and only then
//! programs and maps.

use std::{fmt, net::IpAddr, path::Path};

use anyhow::Context as _;

use crate::{
    config::InterfaceConfig,
    dataplane,
    net::{self, AddressManager, Link},
    state,
};

/// What was there, and is no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The addresses, and the names of the interfaces that they were on.
    pub addresses: Vec<(IpAddr, String)>,
    /// The shared IPs whose gates were in the bpf-dir, if there was one.
    pub gates: Option<Vec<IpAddr>>,
    /// Whether there was a state directory.
    pub state: bool,
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (ip, interface) in &self.addresses {
            parts.push(format!("took {ip} off {interface}"));
        }
        match self.gates.as_deref() {
            None => {}
            Some([]) => parts.push("removed programs and maps".to_owned()),
            Some(gates) => {
                let gates: Vec<String> = gates.iter().map(ToString::to_string).collect();
                parts.push(format!(
                    "removed programs and maps (gates of {})",
                    gates.join(", ")
                ));
            }
        }
        if self.state {
            parts.push("removed the state directory's files".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing was left".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// Takes away all that an agent with these directories left, and the `configured` shared IPs where
/// they lie. Refused while the agent runs.
pub async fn clean_up(
    state_dir: &Path,
    bpf_dir: &Path,
    configured: &[InterfaceConfig],
) -> anyhow::Result<Cleaned> {
    // Its lock tells whether the agent is dead, and is held to the end.
    let state = state::Leftovers::find(state_dir)?;
    let vips = configured.iter().flat_map(|one| one.ips()).collect();
    let mut cleaned = clean_up_pins(bpf_dir, vips).await?;
    if let Some(state) = state {
        cleaned.state = true;
        state.take_away()?;
    }
    Ok(cleaned)
}

/// Takes away what is pinned under `bpf_dir`, and before that the addresses of the shared IPs that
/// have a gate there, and those of `vips`.
pub async fn clean_up_pins(bpf_dir: &Path, mut vips: Vec<IpAddr>) -> anyhow::Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    let pins = dataplane::Leftovers::find(bpf_dir)?;
    if let Some(pins) = &pins {
        pins.shut();
        vips.extend(pins.vips());
        cleaned.gates = Some(pins.vips().to_vec());
    }
    if !vips.is_empty() {
        let manager = AddressManager::open()?;
        for (ifindex, interface, ip) in left_on(&net::links().await?, &vips) {
            manager
                .remove(ifindex, ip)
                .await
                .with_context(|| format!("the gates in {} are shut and left", bpf_dir.display()))?;
            cleaned.addresses.push((ip, interface));
        }
    }
    if let Some(pins) = pins {
        pins.take_away()?;
    }
    Ok(cleaned)
}

/// Where these shared IPs are, on whatever interface, as an agent puts them there. An address that
/// somebody else put there is nobody's to clean up.
fn left_on(links: &[Link], vips: &[IpAddr]) -> Vec<(u32, String, IpAddr)> {
    let mut found = Vec::new();
    for link in links {
        for ip in link.shared.iter().filter(|ip| vips.contains(ip)) {
            found.push((link.ifindex, link.name.clone(), *ip));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{slice, time::Duration};

    use super::*;
    use crate::{
        config::{Probing, VipConfig},
        dataplane::DataplaneMode,
        net::stage::{ip, runtime, staged},
    };

    #[test]
    fn only_what_an_agent_put_there_is_taken_off() {
        staged(|ifindex| {
            let [ours, by_hand, strange] = [100, 101, 102].map(|n| IpAddr::from([10, 0, 0, n]));
            let [ours6, by_hand6, strange6] =
                [100, 101, 102].map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
            ip("addr add 10.0.0.101/32 dev va scope host noprefixroute");
            ip(&format!(
                "addr add {by_hand6}/128 dev va nodad noprefixroute preferred_lft 0"
            ));
            runtime().block_on(async {
                let manager = AddressManager::open().expect("root may");
                for vip in [ours, strange, ours6, strange6] {
                    let lifetime = Duration::from_secs(60);
                    manager.add(ifindex, vip, lifetime).await.expect("root may");
                }
                let nowhere = tempfile::tempdir().expect("a temporary directory");
                let [state, pins] = ["state", "pins"].map(|name| nowhere.path().join(name));
                let configured = InterfaceConfig {
                    name: "va".to_owned(),
                    dataplane: DataplaneMode::Kernel,
                    probe: Probing::default(),
                    vips: [ours, by_hand, ours6, by_hand6].map(VipConfig::new).into(),
                };
                let cleaned = clean_up(&state, &pins, slice::from_ref(&configured))
                    .await
                    .expect("root may");
                assert_eq!(
                    cleaned.to_string(),
                    "took 10.0.0.100 off va; took fd00::64 off va"
                );
                let again = clean_up(&state, &pins, slice::from_ref(&configured))
                    .await
                    .expect("root may");
                assert_eq!(again.to_string(), "nothing was left");
            });
            let left = ip("-4 -o addr show dev va");
            assert!(
                left.contains("10.0.0.101/") && left.contains("10.0.0.102/"),
                "{left}"
            );
            assert!(!left.contains("10.0.0.100/"), "{left}");
            let left = ip("-6 -o addr show dev va");
            assert!(
                left.contains("fd00::65/") && left.contains("fd00::66/"),
                "{left}"
            );
            assert!(!left.contains("fd00::64/"), "{left}");
        });
    }
}
