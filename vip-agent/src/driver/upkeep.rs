//! What others may undo while the agent runs: programs that they detach, pins that they remove, a state
//! directory that is full. Each is looked after once a second, and repaired where that can be done.

use std::time::Duration;

use super::{BootInstant, Driver, clock};
use crate::{
    dataplane::Amiss,
    election::{Exit, History, LeaseId},
    net,
};

const EVERY: Duration = Duration::from_secs(1);

/// What is being looked after, and what is amiss at present.
pub(super) struct Upkeep {
    pub due: BootInstant,
    /// What the state directory is to say of the lease, and does not say yet.
    lease: Option<Option<LeaseId>>,
    lease_trouble: Option<String>,
    /// How far etcd had come when something was last given away, if that is not kept yet.
    pub note: Option<History>,
    pins_trouble: Option<String>,
}

impl Upkeep {
    pub fn new() -> Self {
        Self {
            due: clock::boot_now() + EVERY,
            lease: None,
            lease_trouble: None,
            note: None,
            pins_trouble: None,
        }
    }

    /// What is amiss and does not keep the agent from serving.
    pub fn warnings(&self) -> Vec<String> {
        let troubles = [&self.lease_trouble, &self.pins_trouble];
        troubles.into_iter().flatten().cloned().collect()
    }
}

impl Driver {
    pub(super) async fn look_after(&mut self) -> anyhow::Result<Option<Exit>> {
        let now = clock::boot_now();
        self.upkeep.due = now + EVERY;
        self.keep_lease();
        self.conflicts.tell_rest(now);
        self.tell_hooks_of_conflicts();
        let detached = self.look_after_dataplane();
        if !detached.is_empty() {
            return self.attach_again(&detached).await;
        }
        if self.interfaces.settings_changed() {
            return self.look_at_interfaces(&[]).await;
        }
        Ok(None)
    }

    /// Returns what was detached: the interfaces' indices, and which program.
    fn look_after_dataplane(&mut self) -> Vec<(u32, String)> {
        let Some(dataplane) = &mut self.dataplane else {
            return Vec::new();
        };
        let mut detached = Vec::new();
        let mut pins_trouble = None;
        for amiss in dataplane.look_after() {
            match amiss {
                Amiss::Detached { ifindex, link } => detached.push((ifindex, link)),
                Amiss::PinsRestored(pins) => {
                    tracing::warn!(?pins, "pins were removed by somebody; they are there again");
                }
                Amiss::PinsMissing(error) => pins_trouble = Some(error.to_string()),
            }
        }
        self.note_pins(pins_trouble);
        detached
    }

    /// Keeps the lease for the next start; it is tried again for as long as it fails. Without it the
    /// next start begins anew, which costs an outage and no more.
    pub(super) fn remember(&mut self, lease: Option<LeaseId>) {
        self.upkeep.lease = Some(lease);
        self.keep_lease();
    }

    /// Keeps how far etcd had come for the next start. Without it that takes a store at its word that was
    /// restored in just that moment.
    pub(super) fn keep_note(&mut self) {
        if let Some(history) = self.upkeep.note.take()
            && let Err(error) = self.state.note(history)
        {
            tracing::debug!(%error, "the next start will not know how far etcd had come");
        }
    }

    fn keep_lease(&mut self) {
        let Some(lease) = self.upkeep.lease else {
            return;
        };
        match self.state.remember(lease) {
            Ok(()) => {
                self.upkeep.lease = None;
                if self.upkeep.lease_trouble.take().is_some() {
                    tracing::info!("the lease is kept for the next start again");
                }
            }
            Err(error) => {
                let trouble = format!(
                    "the lease cannot be kept for the next start, which will begin anew: {error}"
                );
                if self.upkeep.lease_trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("{trouble}");
                }
                self.upkeep.lease_trouble = Some(trouble);
            }
        }
    }

    fn note_pins(&mut self, trouble: Option<String>) {
        let trouble = trouble.map(|error| {
            format!("pins were removed and cannot be made again, so nothing will stand when the agent ends: {error}")
        });
        if let Some(trouble) = trouble
            .as_ref()
            .filter(|_| trouble != self.upkeep.pins_trouble)
        {
            tracing::warn!("{trouble}");
        }
        self.upkeep.pins_trouble = trouble;
    }

    /// The gate is as it was: what is open is so by right until the deadline, and before that the
    /// programs are back, or the interface is given up.
    async fn attach_again(&mut self, detached: &[(u32, String)]) -> anyhow::Result<Option<Exit>> {
        let links = net::links().await.unwrap_or_default();
        for (ifindex, program) in detached {
            // One that has gone took its programs with it.
            if let Some(link) = links.iter().find(|link| link.ifindex == *ifindex) {
                tracing::warn!(
                    interface = link.name,
                    program,
                    "a program was detached by somebody; attaching it again"
                );
            }
            self.interfaces.forget_attachment(*ifindex);
        }
        self.look_at_interfaces(&[]).await
    }
}
