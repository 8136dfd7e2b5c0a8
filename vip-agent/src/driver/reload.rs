//! Another configuration for an agent that runs: all of it is taken up, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    thread,
};

use tokio::sync::{mpsc::UnboundedSender, oneshot};
use vip_common::abi::MAX_VIPS;

use super::{
    Driver, Source,
    start::{policy, vip_settings},
};
use crate::{
    config::{self, Config, ConfigError, InterfaceConfig, VipConfig},
    election::{Event, Exit},
    net::{self, Link},
};

/// What came of it: what is different now, or why nothing is.
pub type Reloaded = Result<Changes, String>;

/// A configuration that was read, and who wants to know what comes of it.
#[derive(Debug)]
pub(super) struct Reading {
    config: Result<Config, ConfigError>,
    asker: Option<oneshot::Sender<Reloaded>>,
}

/// What another configuration changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Shared IPs that are new.
    pub added: Vec<IpAddr>,
    /// Those that are given up, and are no longer configured then.
    pub removed: Vec<IpAddr>,
    /// Those of which something else is said now.
    pub changed: Vec<IpAddr>,
    /// Whether anything else is different.
    pub others: bool,
}

impl Changes {
    fn between(old: &Config, new: &Config) -> Self {
        let (before, after) = (vips(old), vips(new));
        let not_in = |one: &BTreeMap<IpAddr, _>, other: &BTreeMap<IpAddr, _>| {
            let lacking = one.keys().filter(|vip| !other.contains_key(vip));
            lacking.copied().collect::<Vec<_>>()
        };
        let differs = |(vip, now): (&IpAddr, _)| {
            let differs = before.get(vip).is_some_and(|was| *was != now);
            differs.then_some(*vip)
        };
        let without_vips = |config: &Config| {
            let mut config = config.clone();
            config.interfaces.clear();
            config
        };
        Self {
            added: not_in(&after, &before),
            removed: not_in(&before, &after),
            changed: after
                .iter()
                .filter_map(|(vip, now)| differs((vip, *now)))
                .collect(),
            others: without_vips(old) != without_vips(new),
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (vips, what) in [
            (&self.added, "added"),
            (&self.removed, "removed"),
            (&self.changed, "changed"),
        ] {
            if !vips.is_empty() {
                let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
                parts.push(format!("{what} {}", vips.join(", ")));
            }
        }
        if self.others {
            parts.push("changed what is said of all".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing is different".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// Reads the configuration anew, on a thread of its own: a file that hangs is not to hold up the loop.
pub(super) fn read(
    source: Source,
    asker: Option<oneshot::Sender<Reloaded>>,
    readings: UnboundedSender<Reading>,
) {
    let reading = move || {
        let config = match &source.file {
            Some(file) => Config::load(Some(file), &source.flags),
            None => Err(ConfigError::new(
                "the agent was started without --config, so there is no file to read again",
            )),
        };
        // It may have ended meanwhile.
        let _ = readings.send(Reading { config, asker });
    };
    if let Err(error) = thread::Builder::new()
        .name("config".to_owned())
        .spawn(reading)
    {
        tracing::error!(%error, "the configuration could not be read again; the old one goes on");
    }
}

impl Driver {
    /// Takes up a configuration that was read, or says why not.
    pub(super) async fn take_in_config(
        &mut self,
        Reading { config, asker }: Reading,
    ) -> anyhow::Result<Option<Exit>> {
        let (reloaded, exit) = match self.judge(config).await {
            Ok(new) => {
                let changes = Changes::between(&self.config, &new);
                tracing::info!(%changes, "configured anew");
                (Ok(changes), self.reconfigure(new).await?)
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "the new configuration is not taken up, and the old one goes on"
                );
                (Err(error), None)
            }
        };
        if let Some(asker) = asker {
            // Who asked may have left.
            let _ = asker.send(reloaded);
        }
        Ok(exit)
    }

    /// Everything that can be known to stand in its way, before anything is changed.
    async fn judge(&self, config: Result<Config, ConfigError>) -> Result<Config, String> {
        let new = config.map_err(|error| error.to_string())?;
        if self.election.is_stopping() {
            return Err("the agent is ending".to_owned());
        }
        let restart = self.config.changes_needing_restart(&new);
        if !restart.is_empty() {
            return Err(format!(
                "only a restart can change {}; restart the agent, or change the rest alone",
                restart.join("; ")
            ));
        }
        let links = net::links().await;
        let links =
            links.map_err(|error| format!("the interfaces could not be listed: {error}"))?;
        for one in &new.interfaces {
            check_addresses(one, &links).map_err(|error| error.to_string())?;
        }
        // What is being given up has its gate until then.
        let held = self.interfaces.all.iter().flat_map(|one| one.config.ips());
        let all: BTreeSet<IpAddr> = vips(&new).into_keys().chain(held).collect();
        if u32::try_from(all.len()).is_ok_and(|count| count > MAX_VIPS) {
            return Err(format!(
                "there is room for {MAX_VIPS} shared IPs, and with those that are given up it has {}",
                all.len()
            ));
        }
        Ok(new)
    }

    async fn reconfigure(&mut self, new: Config) -> anyhow::Result<Option<Exit>> {
        self.interfaces.configure(&new.interfaces);
        let old = std::mem::replace(&mut self.config, new);
        let [before, after] = [&old, &self.config].map(policy);
        if before != after
            && let Some(exit) = self.feed(Event::Policy(after))?
        {
            return Ok(Some(exit));
        }
        let [before, after] = [&old, &self.config].map(|one| vip_settings(&one.interfaces));
        // What did not change is not touched: hand-overs that are under way go on.
        if before != after
            && let Some(exit) = self.feed(Event::Configure(after))?
        {
            return Ok(Some(exit));
        }
        if let Err(error) = self.checks.set(&self.config.interfaces) {
            tracing::error!(%error, "health checks cannot be run");
        }
        self.look_at_interfaces(&[]).await
    }
}

/// What a start would refuse of an interface that is there.
fn check_addresses(one: &InterfaceConfig, links: &[Link]) -> Result<(), ConfigError> {
    let Some(link) = links.iter().find(|link| link.name == one.name) else {
        return Ok(());
    };
    for vip in one.ips() {
        config::check_against_subnet(vip, &link.addresses)?;
        for other in links {
            if other.ifindex != link.ifindex && !other.loopback {
                config::check_against_other(vip, &other.name, &other.addresses)?;
            }
        }
    }
    Ok(())
}

/// All that is said of each shared IP.
fn vips(config: &Config) -> BTreeMap<IpAddr, (&VipConfig, bool)> {
    let of = |one: &'_ InterfaceConfig| one.is_probed();
    let interfaces = config.interfaces.iter();
    interfaces
        .flat_map(|one| one.vips.iter().map(move |vip| (vip.ip, (vip, of(one)))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
node: cp-1
etcd: { endpoints: [http://10.0.0.11:2379] }
interfaces:
  - { interface: eth0, vips: [{ ip: 10.0.0.100 }, { ip: 10.0.0.101 }] }
";

    fn changes(replaced: &str, by: &str) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let read = |text: &str| {
            let file = directory.path().join("a.yaml");
            std::fs::write(&file, text).expect("a file can be written");
            Config::load(Some(&file), &config::Flags::default()).expect("it is good")
        };
        Changes::between(&read(OLD), &read(&OLD.replacen(replaced, by, 1))).to_string()
    }

    #[test]
    fn what_is_different_is_told() {
        for (replaced, by, expected) in [
            ("cp-1", "cp-1", "nothing is different"),
            ("node", "on-stop: hold\nnode", "changed what is said of all"),
            (
                "10.0.0.101 }",
                "10.0.0.101, priority: 7 }",
                "changed 10.0.0.101",
            ),
            ("vips", "probe: off, vips", "changed 10.0.0.100, 10.0.0.101"),
            (
                "10.0.0.101",
                "10.0.0.102",
                "added 10.0.0.102; removed 10.0.0.101",
            ),
        ] {
            assert_eq!(changes(replaced, by), expected, "{by}");
        }
    }
}
