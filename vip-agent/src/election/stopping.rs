//! The way out: everything is given up first, the lease last.

use std::time::Duration;

use super::{Action, BootInstant, Election, Exit, Stopping};

impl Election {
    pub(super) fn stop(&mut self, exit: Exit) {
        let by = self.now + 2 * self.ttl() + Duration::from_secs(2);
        self.stopping.get_or_insert(Stopping {
            exit,
            by,
            leaving: false,
        });
    }

    /// Whether nothing is left but to revoke the lease.
    pub(super) fn is_leaving(&self) -> bool {
        self.stopping
            .as_ref()
            .is_some_and(|stopping| stopping.leaving)
    }

    pub(super) fn finish_stop(&mut self) {
        let lease = self.lease_id();
        let quiet = self
            .vips
            .values()
            .all(|vip| vip.is_quiet() && !vip.is_on(lease));
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if self.now >= stopping.by {
            self.exit();
        } else if quiet && !stopping.leaving && self.joining.is_none() {
            stopping.leaving = true;
            match lease {
                Some(lease) => self.out.push(Action::Leave { lease }),
                None => self.exit(),
            }
        }
    }

    pub(super) fn exit(&mut self) {
        let Some(stopping) = self.stopping.take() else {
            return;
        };
        if stopping.exit != Exit::Held {
            self.out.push(Action::SetLeaseDeadline(BootInstant::BOOT));
            self.out.push(Action::Remember(None));
        }
        self.out.push(Action::Exit(stopping.exit));
        self.over = true;
    }
}
