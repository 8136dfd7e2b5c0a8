//! Shared IPs that lie on an interface and serve nobody: the kernel found another machine with them
//! (`dadfailed`, RFC 4862 §5.4.5). What the agent puts there is not looked for like that, but somebody
//! else may put the same address there.

use std::collections::BTreeSet;

use super::Interfaces;
use crate::net::Link;

/// What was said.
#[derive(Default)]
pub(super) struct Duplicates(BTreeSet<String>);

impl Duplicates {
    /// Says what is new.
    pub fn look_at(&mut self, interfaces: &Interfaces, links: &[Link]) {
        let found: BTreeSet<String> = found(interfaces, links).into_iter().collect();
        for text in found.difference(&self.0) {
            tracing::warn!("{text}");
        }
        self.0 = found;
    }
}

/// A line for each.
pub(super) fn found(interfaces: &Interfaces, links: &[Link]) -> Vec<String> {
    let mut found = Vec::new();
    for interface in &interfaces.all {
        let ifindex = interface.link.as_ref().map(|link| link.ifindex);
        let link = links.iter().find(|link| Some(link.ifindex) == ifindex);
        let Some(link) = link else {
            continue;
        };
        for vip in interface
            .config
            .ips()
            .filter(|vip| link.dad_failed.contains(vip))
        {
            found.push(format!(
                "{vip} was put on {0} by somebody else and failed duplicate address detection (dadfailed); \
                 the agent puts it on itself, without that, when it owns it (`ip addr del {vip}/128 dev {0}`)",
                link.name
            ));
        }
    }
    found
}
