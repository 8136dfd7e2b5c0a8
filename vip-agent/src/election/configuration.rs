//! Shared IPs that come and go while the agent runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Action, Election, Policy, UnitId, Vip, VipSettings};

impl Election {
    /// What follows from it follows when it is next looked at who should have what.
    pub(super) fn take_in_policy(&mut self, policy: Policy) {
        let Policy {
            yields,
            preempt,
            rebalance,
            when_all_unfit,
        } = policy;
        self.settings.yields = yields;
        self.settings.preempt = preempt;
        self.settings.rebalance = rebalance;
        self.settings.when_all_unfit = when_all_unfit;
        for (ip, vip) in &mut self.vips {
            if let Some(one) = self.settings.vips.get(ip) {
                vip.conduct = self.settings.conduct(one);
            }
        }
    }

    /// These are all from now on. What is new is learnt by a full read; what is gone is given up first.
    pub(super) fn take_in_configuration(&mut self, vips: BTreeMap<IpAddr, VipSettings>) {
        self.settings.vips = vips;
        for vip in self.vips.values_mut() {
            vip.retired = !self.settings.vips.contains_key(&vip.ip);
        }
        for (ip, one) in &self.settings.vips {
            let conduct = self.settings.conduct(one);
            match self.vips.get_mut(ip) {
                Some(vip) => vip.conduct = conduct,
                None => {
                    self.vips.insert(*ip, Vip::new(*ip, None, conduct));
                    self.view.lose_watch(self.now);
                }
            }
        }
        let before = std::mem::replace(&mut self.units, self.settings.units(&self.vips));
        let retired: BTreeSet<IpAddr> = self
            .vips
            .values()
            .filter(|vip| vip.retired)
            .map(|vip| vip.ip)
            .collect();
        let after: BTreeMap<UnitId, Vec<IpAddr>> = before
            .ids()
            .into_iter()
            .map(|id| (id, self.units.ips(id).to_vec()))
            .collect();
        self.forget_units(|id| {
            let ips = before.ips(id);
            after.get(&id).is_none_or(|now| now != ips) || ips.iter().any(|ip| retired.contains(ip))
        });
    }

    pub(super) fn forget_the_retired(&mut self) {
        let lease = self.lease_id();
        let is_past = |vip: &Vip| vip.retired && vip.is_quiet() && !vip.is_on(lease);
        if !self.vips.values().any(is_past) {
            return;
        }
        let past = self.vips.extract_if(.., |_, vip| is_past(vip));
        let past: Vec<IpAddr> = past.map(|(ip, _)| ip).collect();
        self.out.extend(past.into_iter().map(Action::Forget));
        self.units = self.settings.units(&self.vips);
    }
}
