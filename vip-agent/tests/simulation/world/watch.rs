//! The watches.

use std::time::Duration;

use vip_agent::election::Event;

use super::{Happening, World};
use crate::{
    checks::Broken,
    clock::{MS, TrueNs},
    node::Watch,
};

impl World {
    pub(super) fn watch(&mut self, node: u8, next_revision: i64, silence: Duration) {
        self.sequence += 1;
        let (id, now) = (self.sequence, self.now);
        let standing = &mut self.nodes[usize::from(node)];
        let life = standing.life;
        if let Some(process) = &mut standing.process {
            process.watch = Some(Watch {
                id,
                next_revision,
                heard_at: now,
                silence: TrueNs::try_from(silence.as_nanos()).expect("a TTL fits"),
            });
            let at = self.now + self.rng.u64(MS / 5..2 * MS);
            self.schedule(
                at,
                Happening::Poll {
                    node,
                    life,
                    watch: id,
                    again: true,
                },
            );
        }
    }

    /// What has come for a watch is handed over, and whether it is still alive is looked at.
    pub(super) fn poll(&mut self, node: u8, life: u32, id: u64, again: bool) -> Result<(), Broken> {
        const INTERVAL: TrueNs = 100 * MS;
        let now = self.now;
        let standing = &mut self.nodes[usize::from(node)];
        let blocked_until = [
            standing.link.requests_cut_until,
            standing.link.answers_cut_until,
            standing.link.watch_silent_until,
            self.etcd.leaderless_until,
        ];
        let Some(process) = standing.process.as_mut().filter(|_| standing.life == life) else {
            return Ok(());
        };
        let Some(watch) = process.watch.as_mut().filter(|watch| watch.id == id) else {
            return Ok(());
        };
        let event = if blocked_until.iter().any(|until| now < *until) {
            let lost = now >= watch.heard_at + watch.silence;
            lost.then(|| Event::WatchLost("silent".to_owned()))
        } else {
            watch.heard_at = now;
            match self.etcd.changes_since(watch.next_revision) {
                None => Some(Event::WatchLost("compacted".to_owned())),
                Some(changes) if changes.is_empty() => None,
                Some(changes) => {
                    watch.next_revision = self.etcd.revision() + 1;
                    Some(Event::Watched(changes))
                }
            }
        };
        match &event {
            Some(Event::WatchLost(_)) => process.watch = None,
            _ if again => {
                self.schedule(
                    now + INTERVAL,
                    Happening::Poll {
                        node,
                        life,
                        watch: id,
                        again,
                    },
                );
            }
            _ => {}
        }
        event.map_or(Ok(()), |event| self.tell(node, life, event))
    }

    /// Something was committed if the revision is another one than before.
    pub(super) fn committed(&mut self, before: i64) {
        if self.etcd.revision() != before {
            self.poll_all();
        }
    }

    pub(super) fn poll_all(&mut self) {
        for index in 0..self.nodes.len() {
            let node = u8::try_from(index).expect("a handful of nodes");
            let standing = &self.nodes[index];
            let life = standing.life;
            let watch = standing
                .process
                .as_ref()
                .and_then(|process| process.watch.as_ref());
            if let Some(watch) = watch.map(|watch| watch.id)
                && let Some(at) = self.leg(node, 0)
            {
                self.schedule(
                    at,
                    Happening::Poll {
                        node,
                        life,
                        watch,
                        again: false,
                    },
                );
            }
        }
    }
}
