//! etcd, as the election sees it: requests go off, their answers come back as events.
//!
//! No policy lives here but how to reach a member of the cluster: which endpoint to ask, how
//! long, and when to ask another one as well.

mod connect;
mod drains;
mod endpoints;
mod error;
mod keys;
mod known;
mod outage;
mod owners;
mod records;
mod renew;
mod requests;
#[cfg(test)]
mod tests;
mod version;
mod watch;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc::UnboundedSender,
    task::{AbortHandle, spawn_local},
    time::Instant,
};

use crate::{
    config::EtcdConfig,
    election::{Action, Event, LeaseId, Outcome},
};
pub use drains::Drains;
pub use endpoints::Health;
use endpoints::{Ask, Endpoints};
pub use error::StoreError;
use keys::Keys;
use known::Basis;
use owners::Unit;
use renew::RenewalStreams;

/// How often a refusal that stays the same is told.
const REFUSAL_AGAIN: Duration = Duration::from_secs(60);

/// How long a change of owner keys waits for others to share its request: a gate may be shut meanwhile.
const LONGEST_WAIT: Duration = Duration::from_millis(3);

/// What the store tells the driver.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum StoreEvent {
    /// An answer for the election.
    Election(Event),
    /// etcd answered, and refused this agent for good: a wrong user, password or certificate.
    Refused(StoreError),
}

/// A cluster of etcd members.
pub struct Store {
    shared: Rc<Shared>,
    watch: Option<AbortHandle>,
    /// What [`Store::flush`] sends off.
    gathered: Vec<Unit>,
    /// Since when the first of them waits.
    gathered_at: Instant,
}

/// What the tasks of requests share.
struct Shared {
    keys: Keys,
    /// Our member key.
    own: String,
    endpoints: Endpoints,
    basis: Basis,
    renewals: RenewalStreams,
    events: UnboundedSender<StoreEvent>,
    ttl: Duration,
    /// The last refusal that was told, without its endpoint, and when.
    refusal: RefCell<Option<(String, Instant)>>,
    asked_version: Cell<bool>,
}

impl Store {
    /// The cluster of `config`, for the agent of `node`; nothing is sent yet. `ttl`, the lease's, sets
    /// how long one request may take. Answers go to `events`.
    pub fn new(
        config: &EtcdConfig,
        node: &str,
        ttl: Duration,
        events: UnboundedSender<StoreEvent>,
    ) -> Self {
        let endpoints = Endpoints::new(config, ttl);
        let renewals = RenewalStreams::new(config.endpoints.len());
        let keys = Keys::new(&config.prefix);
        Self {
            shared: Rc::new(Shared {
                own: keys.member(node),
                keys,
                endpoints,
                basis: Basis::default(),
                renewals,
                events,
                ttl,
                refusal: RefCell::new(None),
                asked_version: Cell::new(false),
            }),
            watch: None,
            gathered: Vec::new(),
            gathered_at: Instant::now(),
        }
    }

    /// How etcd has been answering.
    pub fn health(&self) -> Health {
        self.shared.endpoints.health()
    }

    /// Sends off what `action` asks of etcd, or gathers it: changes of owner keys go with the next
    /// [`flush`](Self::flush). Returns it if it is none of the store's.
    pub fn request(&mut self, action: Action) -> Option<Action> {
        let shared = Rc::clone(&self.shared);
        match action {
            Action::Read => spawn(async move {
                if shared.read_all().await {
                    shared.look_at_version().await;
                }
            }),
            Action::Watch {
                from_revision,
                silence,
            } => self.watch(from_revision, silence),
            Action::Grant { ttl } => spawn(async move { shared.grant(ttl).await }),
            Action::Renew {
                round,
                lease,
                patience,
            } => {
                let reading = Rc::clone(&shared);
                spawn(async move { shared.renew(round, lease, patience).await });
                spawn(async move { reading.confirm(round, patience).await });
            }
            Action::Join {
                lease,
                record,
                replacing,
            } => {
                spawn(async move { shared.join(lease, record, replacing).await });
            }
            Action::Claim { lease, records } => {
                self.gather(Unit::claim(&shared.keys, lease, records));
            }
            Action::Transfer { to, lease, records } => {
                self.gather(Unit::transfer(&shared.keys, &to, lease, records));
            }
            Action::Reassert {
                vip,
                version,
                record,
            } => {
                self.gather(Unit::reassert(&shared.keys, vip, version, record));
            }
            Action::Release { vip, version } => {
                self.gather(Unit::release(&shared.keys, vip, version));
            }
            Action::Leave { lease } => {
                // It may not overtake what was asked for before it.
                self.flush();
                spawn(async move { shared.leave(lease).await });
            }
            other => return Some(other),
        }
        None
    }

    /// Sends off what was gathered, unless more of it may be `coming` at once and it can wait for that.
    pub fn flush_unless(&mut self, coming: bool) {
        if !coming || self.gathered_at.elapsed() >= LONGEST_WAIT {
            self.flush();
        }
    }

    /// Sends off what was gathered.
    pub fn flush(&mut self) {
        if !self.gathered.is_empty() {
            owners::send(&self.shared, std::mem::take(&mut self.gathered));
        }
    }

    fn gather(&mut self, unit: Unit) {
        if self.gathered.is_empty() {
            self.gathered_at = Instant::now();
        }
        self.gathered.push(unit);
    }

    fn watch(&mut self, from_revision: i64, silence: Duration) {
        if let Some(old) = self.watch.take() {
            old.abort();
        }
        let shared = Rc::clone(&self.shared);
        let task = spawn_local(async move { shared.watch(from_revision, silence).await });
        self.watch = Some(task.abort_handle());
    }
}

impl Shared {
    fn tell(&self, event: Event) {
        // Nobody listens any more only when the agent is on its way out.
        let _ = self.events.send(StoreEvent::Election(event));
    }

    /// Passes on that etcd will have nothing to do with us, but not at each try; gives the error back
    /// as text.
    fn note(&self, error: StoreError) -> String {
        let text = error.to_string();
        if error.is_refusal() && self.is_news(error.reason()) {
            let _ = self.events.send(StoreEvent::Refused(error));
        }
        text
    }

    fn is_news(&self, refusal: String) -> bool {
        let now = Instant::now();
        let mut last = self.refusal.borrow_mut();
        let is_old = |(text, at): &(String, Instant)| *text == refusal && now < *at + REFUSAL_AGAIN;
        if last.as_ref().is_some_and(is_old) {
            return false;
        }
        *last = Some((refusal, now));
        true
    }

    /// Says, once, what is to be said of etcd's version.
    async fn look_at_version(&self) {
        if self.asked_version.replace(true) {
            return;
        }
        let asked = self
            .endpoints
            .ask_aside(self.ttl, async |mut client| client.status().await)
            .await;
        match asked {
            Ok((endpoint, status)) => {
                let version = status.version();
                tracing::debug!(endpoint, version, "etcd's version");
                if let Some(advice) = version::advice(version) {
                    tracing::warn!(endpoint, version, "etcd: {advice}");
                }
            }
            // Not every user may ask.
            Err(error) => tracing::debug!(%error, "etcd's version is not known"),
        }
    }

    fn doubt<T>(&self, error: StoreError) -> Outcome<T> {
        if error.says_lease_gone() {
            Outcome::LeaseGone
        } else {
            Outcome::Unknown(self.note(error))
        }
    }

    async fn grant(&self, ttl: Duration) {
        let sent_at = crate::clock::boot_now();
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = self
            .endpoints
            .ask(Ask::Once, self.ttl, async |_, mut client| {
                client.lease_grant(seconds, None).await
            })
            .await;
        self.tell(match granted {
            Ok(granted) => {
                let ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
                Event::Granted {
                    sent_at,
                    lease: LeaseId(granted.id()),
                    ttl,
                }
            }
            Err(error) => Event::GrantFailed(self.note(error)),
        });
    }

    async fn leave(&self, lease: LeaseId) {
        let revoked = self
            .endpoints
            .ask(Ask::Once, self.ttl, async |_, mut client| {
                client.lease_revoke(lease.0).await
            })
            .await;
        if let Err(error) = revoked {
            tracing::warn!(%lease, %error, "the lease could not be revoked; it ends by itself");
        }
        self.tell(Event::Left);
    }
}

/// What is behind these locks is whole at any time, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All of the agent runs on one thread, in a `LocalSet`.
fn spawn(task: impl Future<Output = ()> + 'static) {
    spawn_local(task);
}
