//! What may be meant but most likely is not: said once.

use std::{collections::BTreeMap, net::IpAddr};

use super::interfaces::Interfaces;
use crate::config;

/// What was said of each shared IP.
#[derive(Default)]
pub(super) struct Advice(BTreeMap<IpAddr, String>);

impl Advice {
    pub fn look_at(&mut self, interfaces: &Interfaces) {
        for interface in &interfaces.all {
            let Some(link) = &interface.link else {
                continue;
            };
            for vip in interface.config.ips() {
                if let Some(text) = config::advice_on_subnet(vip, &link.name, &link.addresses)
                    && self.0.get(&vip) != Some(&text)
                {
                    tracing::warn!("{text}");
                    self.0.insert(vip, text);
                }
            }
        }
    }
}
