//! What hooks are told, and when.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{Driver, clock, conflicts, interfaces::Interfaces};
use crate::{
    config::Config,
    election::{Report, Role},
    hooks::{Kind, Occasion, Runner},
    status::HookStatus,
};

/// How long the end of the agent waits for hooks when all has been given up: nobody waits for it then but who stopped it,
/// and who shuts a machine down has little patience.
const END: Duration = Duration::from_secs(5);
/// And when all is held for the next start: the lease runs, and that start tells of what it goes on to own again.
const HOLD: Duration = Duration::from_millis(250);

/// The hooks' thread, and what it was last told of each shared IP.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    runner: Runner,
    told: BTreeMap<IpAddr, Told>,
}

/// What a shared IP's hooks were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// That it is owned here.
    Owner,
    /// That it no longer is.
    Follower,
    /// By an earlier process, which owned it and may not have lived to tell.
    Unknown,
}

impl Hooks {
    /// After a process that left these gates open.
    pub fn inherit(owned: impl Iterator<Item = IpAddr>) -> Self {
        Self {
            runner: Runner::default(),
            told: owned.map(|vip| (vip, Told::Unknown)).collect(),
        }
    }

    /// Those that are configured, or were.
    pub fn status(&self, config: &Config) -> Vec<HookStatus> {
        let status = |kind: Kind| {
            let counts = self.runner.counts(kind);
            HookStatus {
                event: kind.to_string(),
                ran: counts.ran,
                failed: counts.failed,
                timed_out: counts.timed_out,
                merged: counts.merged,
                last_failure: counts.last_failure,
            }
        };
        let is_of_use = |hook: &HookStatus, kind: Kind| {
            kind.command(&config.hooks).is_some() || hook.ran + hook.merged > 0
        };
        Kind::ALL
            .into_iter()
            .map(|kind| (status(kind), kind))
            .filter(|(hook, kind)| is_of_use(hook, *kind))
            .map(|(hook, _)| hook)
            .collect()
    }

    /// What a change to `role` is to those who were told of the last one. A gate that is shut for a while
    /// and opens again for the same owner is none.
    fn turn(&mut self, vip: IpAddr, role: Role) -> Option<Kind> {
        let told = self.told.get(&vip).copied().unwrap_or(Told::Follower);
        let (kind, now) = match role {
            Role::Owner if told != Told::Owner => (Kind::BecomeOwner, Told::Owner),
            Role::Vacant | Role::Follower if told != Told::Follower => {
                (Kind::BecomeFollower, Told::Follower)
            }
            _ => return None,
        };
        self.told.insert(vip, now);
        Some(kind)
    }

    /// All that are believed to be owned here.
    fn owned(&self) -> Vec<IpAddr> {
        let owned = self
            .told
            .iter()
            .filter(|(_, told)| **told != Told::Follower);
        owned.map(|(vip, _)| *vip).collect()
    }
}

impl Driver {
    /// Has the hook run that a transition calls for, if it calls for one.
    pub(super) fn tell_hooks(&mut self, report: &Report) {
        let Report::Transition {
            vip,
            new,
            cause,
            epoch,
            owner,
            ..
        } = report
        else {
            return;
        };
        let Some(kind) = self.hooks.turn(*vip, *new) else {
            return;
        };
        let occasion = Occasion {
            role: new.to_string(),
            owner: owner.clone(),
            epoch: *epoch,
            cause: cause.clone(),
            ..blank(kind, *vip, &self.config, &self.interfaces)
        };
        self.hooks.runner.tell(occasion, &self.config.hooks);
    }

    /// A shared IP is no longer configured: no transition tells what becomes of it.
    pub(super) fn tell_hooks_of_the_end_of(&mut self, vip: IpAddr) {
        let told = self.hooks.told.remove(&vip).unwrap_or(Told::Follower);
        if told != Told::Follower {
            let occasion = Occasion {
                role: Role::Unknown.to_string(),
                cause: "no longer configured".to_owned(),
                ..blank(Kind::BecomeFollower, vip, &self.config, &self.interfaces)
            };
            self.hooks.runner.tell(occasion, &self.config.hooks);
        }
    }

    /// Likewise for the conflicts that were just told.
    pub(super) fn tell_hooks_of_conflicts(&mut self) {
        for conflicts::Told {
            vip,
            interface,
            stranger,
        } in self.conflicts.take_told()
        {
            let role = self.election.role(vip, clock::boot_now());
            let (role, owner, epoch) = role.unwrap_or((Role::Unknown, None, 0));
            let occasion = Occasion {
                interface,
                role: role.to_string(),
                owner: owner.map(str::to_owned),
                epoch,
                cause: format!("{} claims it, which no member has", stranger.mac),
                stranger: Some(stranger),
                ..blank(Kind::Conflict, vip, &self.config, &self.interfaces)
            };
            self.hooks.runner.tell(occasion, &self.config.hooks);
        }
    }

    /// The last news, and time for the hooks to end. `holds`: all was left as it is.
    pub(super) fn end_hooks(&mut self, holds: bool) {
        let hooks = std::mem::take(&mut self.hooks);
        let owned = hooks.owned();
        let mut runner = hooks.runner;
        // Those of which the end came before the answer that they are given up.
        for vip in owned.into_iter().filter(|_| !holds) {
            let role = self.election.role(vip, clock::boot_now());
            let (role, owner, epoch) = role.unwrap_or((Role::Unknown, None, 0));
            let occasion = Occasion {
                role: role.to_string(),
                owner: owner.map(str::to_owned),
                epoch,
                cause: "the agent ends".to_owned(),
                ..blank(Kind::BecomeFollower, vip, &self.config, &self.interfaces)
            };
            runner.tell(occasion, &self.config.hooks);
        }
        runner.finish(if holds { HOLD } else { END });
    }
}

/// What is true of every occasion.
fn blank(kind: Kind, vip: IpAddr, config: &Config, interfaces: &Interfaces) -> Occasion {
    let interface = interfaces.of(vip).map(|one| &one.config);
    let own = interface.and_then(|one| one.vips.iter().find(|own| own.ip == vip));
    Occasion {
        kind,
        vip,
        group: own.and_then(|own| own.group.clone()),
        node: config.node.clone(),
        interface: interface.map(|one| one.name.clone()).unwrap_or_default(),
        role: String::new(),
        owner: None,
        epoch: 0,
        cause: String::new(),
        time: humantime::format_rfc3339_millis(clock::time_of_day()).to_string(),
        stranger: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

    fn turns(mut hooks: Hooks, roles: &[Role]) -> Vec<Option<Kind>> {
        roles.iter().map(|role| hooks.turn(VIP, *role)).collect()
    }

    #[test]
    fn who_comes_to_own_it_is_told_once_and_so_is_who_loses_it() {
        let roles = [
            Role::Vacant,
            Role::Claiming,
            Role::TakingOver,
            Role::Owner,
            Role::GivingUp,
            Role::Vacant,
            Role::Follower,
        ];
        let (owner, follower) = (Some(Kind::BecomeOwner), Some(Kind::BecomeFollower));
        assert_eq!(
            turns(Hooks::default(), &roles),
            [None, None, None, owner, None, follower, None]
        );
    }

    #[test]
    fn a_gate_that_shuts_and_opens_again_for_the_same_owner_runs_nothing() {
        let roles = [
            Role::Owner,
            Role::Suspended,
            Role::Owner,
            Role::GivingUp,
            Role::TakingOver,
            Role::Owner,
        ];
        let mut expected = [None; 6];
        expected[0] = Some(Kind::BecomeOwner);
        assert_eq!(turns(Hooks::default(), &roles), expected);
    }

    #[test]
    fn what_an_earlier_process_owned_is_told_whatever_has_become_of_it() {
        let inherited = || Hooks::inherit([VIP].into_iter());
        for (role, kind) in [
            (Role::Owner, Kind::BecomeOwner),
            (Role::Follower, Kind::BecomeFollower),
        ] {
            assert_eq!(
                turns(inherited(), &[Role::Unknown, role, role]),
                [None, Some(kind), None]
            );
        }
        assert_eq!(turns(Hooks::default(), &[Role::Follower]), [None]);
        assert_eq!(inherited().owned(), [VIP]);
    }
}
