//! Another configuration for an agent that runs: all of it is taken up, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
};

use vip_common::abi::MAX_VIPS;

use super::{
    Driver,
    start::{policy, vip_settings},
};
use crate::{
    config::{self, Config, ConfigError, InterfaceConfig, VipConfig},
    control::{Error, ErrorKind, Reloaded, Reply, Success},
    election::{Event, Exit},
    net::{self, Link},
};

/// A configuration that was read, and who wants to know what comes of it.
#[derive(Debug)]
pub(super) struct Reading {
    serial: u64,
    config: Result<Config, ConfigError>,
    asker: Option<Reply>,
}

/// How often it was read again: a reading that took long must not undo a later one.
#[derive(Debug, Default)]
pub(super) struct Serials {
    begun: u64,
    taken: u64,
}

impl Driver {
    /// Reads the configuration anew, on a thread of its own: a file that hangs is not to hold up the loop.
    pub(super) fn read_config(&mut self, asker: Option<Reply>) {
        self.serials.begun += 1;
        let (serial, source) = (self.serials.begun, self.source.clone());
        let readings = self.readings.clone();
        let reading = move || {
            let config = match &source.file {
                Some(file) => Config::load(Some(file), &source.flags),
                None => Err(ConfigError::new(
                    "the agent was started without --config, so there is no file to read again",
                )),
            };
            // It may have ended meanwhile.
            let _ = readings.send(Reading {
                serial,
                config,
                asker,
            });
        };
        let thread = thread::Builder::new().name("config".to_owned());
        if let Err(error) = thread.spawn(reading) {
            tracing::error!(%error, "the configuration could not be read again, and the old one goes on");
        }
    }

    /// Takes up a configuration that was read, or says why not.
    pub(super) async fn take_in_config(
        &mut self,
        Reading {
            serial,
            config,
            asker,
        }: Reading,
    ) -> anyhow::Result<Option<Exit>> {
        let (result, exit) = match self.judge(serial, config).await {
            Ok(new) => {
                let changes = changes(&self.config, &new);
                tracing::info!(%changes, "configured anew");
                self.serials.taken = serial;
                (Ok(Success::Reload(changes)), self.reconfigure(new).await?)
            }
            Err(error) => {
                tracing::error!(%error, "the new configuration is not taken up, and the old one goes on");
                (Err(error), None)
            }
        };
        if let Some(asker) = asker {
            asker.end(result);
        }
        Ok(exit)
    }

    /// Everything that can be known to stand in its way, before anything is changed.
    async fn judge(
        &self,
        serial: u64,
        config: Result<Config, ConfigError>,
    ) -> Result<Config, Error> {
        let wrong = |error: String| Error::new(ErrorKind::BadConfig, error);
        let new = config.map_err(|error| wrong(error.to_string()))?;
        if serial < self.serials.taken {
            return Err(Error::new(
                ErrorKind::Superseded,
                "it was read again meanwhile, and what was read then is taken up",
            ));
        }
        if self.election.is_stopping() {
            let error = Error::new(ErrorKind::Unavailable, "the agent is ending");
            return Err(error);
        }
        let restart = self.config.changes_needing_restart(&new);
        if !restart.is_empty() {
            return Err(Error::new(
                ErrorKind::NeedsRestart,
                format!(
                    "only a restart can change {}; restart the agent, or change the rest alone",
                    restart.join("; ")
                ),
            ));
        }
        let links = net::links().await.map_err(|error| {
            let error = format!("the interfaces could not be listed: {error}");
            Error::new(ErrorKind::Failed, error)
        })?;
        for one in &new.interfaces {
            check_addresses(one, &links).map_err(|error| wrong(error.to_string()))?;
        }
        // Gate and address are one interface's until they are gone.
        for (vip, to) in new.interfaces.iter().flat_map(on) {
            if let Some(from) = self.interfaces.of(vip).filter(|one| one.config.name != to) {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!(
                        "vip {vip} is still being given up on interface {}; reload again when it is off",
                        from.config.name
                    ),
                ));
            }
        }
        for one in &new.interfaces {
            let standing = self
                .interfaces
                .all
                .iter()
                .find(|old| old.config.name == one.name);
            if let Some(old) = standing.filter(|old| old.config.dataplane != one.dataplane) {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!(
                        "interface {} still carries what is being given up, with `dataplane: {}`; reload again when it is off",
                        one.name, old.config.dataplane
                    ),
                ));
            }
        }
        // What is being given up has its gate until then.
        let held = self.interfaces.all.iter().flat_map(|one| one.config.ips());
        let all: BTreeSet<IpAddr> = vips(&new).into_keys().chain(held).collect();
        if u32::try_from(all.len()).is_ok_and(|count| count > MAX_VIPS) {
            return Err(wrong(format!(
                "there is room for {MAX_VIPS} shared IPs, and with those that are given up it has {}",
                all.len()
            )));
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

/// What `new` makes different.
fn changes(old: &Config, new: &Config) -> Reloaded {
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
    Reloaded {
        added: not_in(&after, &before),
        removed: not_in(&before, &after),
        changed: after
            .iter()
            .filter_map(|(vip, now)| differs((vip, *now)))
            .collect(),
        others: without_vips(old) != without_vips(new),
    }
}

fn on(one: &InterfaceConfig) -> impl Iterator<Item = (IpAddr, &str)> {
    one.ips().map(|vip| (vip, one.name.as_str()))
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

    fn told(replaced: &str, by: &str) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let read = |text: &str| {
            let file = directory.path().join("a.yaml");
            std::fs::write(&file, text).expect("a file can be written");
            Config::load(Some(&file), &config::Flags::default()).expect("it is good")
        };
        super::changes(&read(OLD), &read(&OLD.replacen(replaced, by, 1))).to_string()
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
            assert_eq!(told(replaced, by), expected, "{by}");
        }
    }
}
