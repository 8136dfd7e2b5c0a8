//! What the health checks have come to, and what that and the interfaces make of each shared IP.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::SystemTime,
};

use tokio::sync::mpsc::UnboundedSender;

use super::{Driver, clock, log, status::rfc3339};
use crate::{
    config::{CheckConfig, InterfaceConfig, VipConfig},
    election::{Event, Exit, Fitness, Role},
    health::{Health, Verdict},
    status::{CheckState, CheckStatus},
};

/// The checks of all shared IPs.
pub(super) struct Checks {
    health: Health,
    known: BTreeMap<CheckConfig, Known>,
}

/// A check's verdict, if there is one yet.
struct Known {
    result: Option<Result<(), String>>,
    since: SystemTime,
}

impl Checks {
    pub fn new(verdicts: UnboundedSender<Verdict>) -> Self {
        Self {
            health: Health::new(verdicts),
            known: BTreeMap::new(),
        }
    }

    /// Runs what these interfaces ask for, and no more. What they asked for before goes on.
    pub fn set(&mut self, interfaces: &[InterfaceConfig]) -> io::Result<()> {
        let vips = interfaces.iter().flat_map(|one| &one.vips);
        let wanted: BTreeSet<CheckConfig> = vips.flat_map(|vip| vip.health.clone()).collect();
        self.known.retain(|check, _| wanted.contains(check));
        for check in &wanted {
            self.known.entry(check.clone()).or_insert_with(|| Known {
                result: None,
                since: clock::time_of_day(),
            });
        }
        self.health.set(wanted)
    }

    pub fn take_in(&mut self, verdict: Verdict) {
        // One of a check that is no longer wanted may still be on its way.
        if let Some(known) = self.known.get_mut(&verdict.check) {
            let passed = |result: &Option<Result<(), String>>| result.as_ref().map(Result::is_ok);
            let result = Some(verdict.result);
            if passed(&known.result) != passed(&result) {
                known.since = clock::time_of_day();
            }
            known.result = result;
        }
    }

    /// What speaks against a shared IP here, in words that stay the same while it does. `serves`: this node
    /// has it already, and does not give it up because nobody has looked yet.
    fn against(&self, vip: &VipConfig, serves: bool) -> Option<String> {
        let known = vip
            .health
            .iter()
            .filter_map(|check| self.known.get_key_value(check));
        let mut unchecked = None;
        for (check, known) in known {
            match known.result {
                Some(Ok(())) => {}
                Some(Err(_)) => return Some(format!("{check} fails")),
                None => unchecked = Some("its health checks were not run yet".to_owned()),
            }
        }
        unchecked.filter(|_| !serves)
    }

    /// Those that fail, with what they said last.
    pub fn failing(&self) -> impl Iterator<Item = String> {
        let failing = |(check, known): (&CheckConfig, &Known)| match &known.result {
            Some(Err(reason)) => Some(format!("health check {check}: {reason}")),
            _ => None,
        };
        self.known.iter().filter_map(failing)
    }

    pub fn status(&self) -> Vec<CheckStatus> {
        let status = |(check, known): (&CheckConfig, &Known)| {
            let (state, reason) = match &known.result {
                None => (CheckState::Unchecked, None),
                Some(Ok(())) => (CheckState::Passing, None),
                Some(Err(reason)) => (CheckState::Failing, Some(reason.clone())),
            };
            CheckStatus {
                check: check.to_string(),
                state,
                since: rfc3339(known.since),
                reason,
            }
        };
        self.known.iter().map(status).collect()
    }
}

impl Driver {
    /// Tells the election what has changed of what it was told.
    pub(super) fn tell_fitness(&mut self) -> anyhow::Result<Option<Exit>> {
        let told = &self.told;
        let mut changed = self.fitness();
        changed.retain(|vip, fitness| told.get(vip) != Some(fitness));
        log::write_fitness(told, &changed);
        for (vip, fitness) in changed {
            self.told.insert(vip, fitness.clone());
            if let Some(exit) = self.feed(Event::Fitness(vip, fitness))? {
                return Ok(Some(exit));
            }
        }
        Ok(None)
    }

    fn fitness(&self) -> BTreeMap<IpAddr, Fitness> {
        let all = self.interfaces.all.iter();
        let vips = all.flat_map(|one| one.config.vips.iter().map(move |vip| (one, vip)));
        let judged = vips.map(|(interface, vip)| {
            let fitness = match interface.fitness(vip.ip) {
                Fitness::Fit(mac) => match self.checks.against(vip, self.serves(vip.ip)) {
                    Some(why) => Fitness::Unhealthy(mac, why),
                    None => Fitness::Fit(mac),
                },
                worse => worse,
            };
            (vip.ip, fitness)
        });
        judged.collect()
    }

    /// Whether this node has a shared IP, or went on with it when it started and knows no better yet.
    fn serves(&self, vip: IpAddr) -> bool {
        match self.election.role(vip, clock::boot_now()) {
            Some((Role::TakingOver | Role::Owner | Role::Suspended, ..)) => true,
            Some((Role::Unknown, ..)) => self.inherited.contains(&vip),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Probing, Target},
        dataplane::DataplaneMode,
    };
    use tokio::sync::mpsc::unbounded_channel;

    fn check(host: &str) -> CheckConfig {
        CheckConfig::new(Target::Tcp {
            // Nothing is resolved: what is told here is not what came of them.
            host: host.to_owned(),
            port: 1,
        })
    }

    fn vip(health: &[CheckConfig]) -> VipConfig {
        VipConfig {
            health: health.iter().cloned().collect(),
            ..VipConfig::new(IpAddr::from([10, 0, 0, 100]))
        }
    }

    fn interface(vip: &VipConfig) -> InterfaceConfig {
        InterfaceConfig {
            name: "eth0".to_owned(),
            dataplane: DataplaneMode::Auto,
            probe: Probing::On,
            vips: vec![vip.clone()],
        }
    }

    #[test]
    fn a_check_speaks_against_a_shared_ip_until_it_passes_and_of_one_that_is_served_when_it_fails()
    {
        let [one, other] = ["127.0.0.1", "127.0.0.2"].map(check);
        let vip = vip(&[one.clone(), other.clone()]);
        let mut checks = Checks::new(unbounded_channel().0);
        checks.set(&[interface(&vip)]).expect("they can be run");
        let against = |checks: &Checks| [false, true].map(|serves| checks.against(&vip, serves));
        let says = |why: &str| Some(why.to_owned());
        let unchecked = says("its health checks were not run yet");
        assert_eq!(against(&checks), [unchecked.clone(), None]);
        let tell = |checks: &mut Checks, check: &CheckConfig, result: Result<(), &str>| {
            let (check, result) = (check.clone(), result.map_err(str::to_owned));
            checks.take_in(Verdict { check, result });
        };
        tell(&mut checks, &one, Ok(()));
        assert_eq!(against(&checks), [unchecked, None]);
        tell(&mut checks, &other, Err("no connection within 1s"));
        // What is told to others does not change with what is said of it here.
        let fails = says("tcp 127.0.0.2:1 fails");
        assert_eq!(against(&checks), [fails.clone(), fails.clone()]);
        let said = "health check tcp 127.0.0.2:1: no connection within 1s";
        assert_eq!(checks.failing().collect::<Vec<_>>(), [said]);
        tell(&mut checks, &other, Err("Connection refused"));
        assert_eq!(against(&checks), [fails.clone(), fails]);
        tell(&mut checks, &other, Ok(()));
        assert_eq!(against(&checks), [None, None]);
        assert_eq!(checks.failing().count(), 0);
    }

    #[test]
    fn checks_that_are_configured_still_keep_what_they_came_to() {
        let [kept, gone] = ["127.0.0.1", "127.0.0.2"].map(check);
        let both = vip(&[kept.clone(), gone.clone()]);
        let mut checks = Checks::new(unbounded_channel().0);
        checks.set(&[interface(&both)]).expect("they can be run");
        for check in [&kept, &gone] {
            let (check, result) = (check.clone(), Ok(()));
            checks.take_in(Verdict { check, result });
        }
        let one = vip(std::slice::from_ref(&kept));
        checks.set(&[interface(&one)]).expect("they can be run");
        checks.take_in(Verdict {
            check: gone.clone(),
            result: Err("late".to_owned()),
        });
        assert_eq!(checks.failing().count(), 0);
        checks.set(&[interface(&both)]).expect("they can be run");
        let state = |status: CheckStatus| (status.check, status.state);
        let states: Vec<_> = checks.status().into_iter().map(state).collect();
        assert_eq!(
            states,
            [
                (kept.to_string(), CheckState::Passing),
                (gone.to_string(), CheckState::Unchecked)
            ]
        );
    }
}
