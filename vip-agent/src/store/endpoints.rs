//! Which member of the cluster to ask.
//!
//! One connection per endpoint, made when it is needed and made anew when it failed. A question
//! that is safe to ask twice is asked of the next endpoint too when the first is slow to answer;
//! whichever answers is asked first from then on.

use std::{
    fs,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::error::StoreError;
use crate::config::{EtcdConfig, Tls};

/// etcd's servers hang up on clients that ping more often than each 5 s
/// (`--grpc-keepalive-min-time`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a question may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Of one endpoint: it changes something.
    Once,
    /// Of several at a time: any of the answers will do.
    Hedged,
}

/// How etcd has been answering.
#[derive(Clone, Debug)]
pub struct Health {
    /// The endpoint that is asked first.
    pub endpoint: String,
    /// What last went wrong, since something last went right.
    pub last_error: Option<String>,
    /// Whether anything was ever answered.
    pub ever_answered: bool,
}

pub(super) struct Endpoints {
    config: EtcdConfig,
    /// Silence after which a hedged question goes to the next endpoint as well.
    hedge_after: Duration,
    clients: Vec<Mutex<Option<Client>>>,
    /// The endpoint that is asked first: the one that answered last.
    first: watch::Sender<usize>,
    ever_answered: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Endpoints {
    pub fn new(config: &EtcdConfig, ttl: Duration) -> Self {
        Self {
            hedge_after: ttl / 12,
            clients: config.endpoints.iter().map(|_| Mutex::new(None)).collect(),
            first: watch::Sender::new(0),
            ever_answered: AtomicBool::new(false),
            last_error: Mutex::new(None),
            config: config.clone(),
        }
    }

    pub fn health(&self) -> Health {
        Health {
            endpoint: self.config.endpoints[*self.first.borrow()].clone(),
            last_error: lock(&self.last_error).clone(),
            ever_answered: self.ever_answered.load(Ordering::Relaxed),
        }
    }

    /// Asks `question` of the first endpoint, and of the others as `ask` allows, until one answers
    /// or `patience` runs out. The question is given the endpoint's index and a client for it.
    pub async fn ask<T>(
        &self,
        ask: Ask,
        patience: Duration,
        question: impl AsyncFn(usize, Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + patience;
        let count = self.clients.len();
        let first = *self.first.borrow();
        let most = if ask == Ask::Hedged { count } else { 1 };
        let mut others = (1..most).map(|step| (first + step) % count);
        let mut attempts = FuturesUnordered::new();
        attempts.push(self.attempt(first, deadline, patience, &question));
        loop {
            let hedge_at = Instant::now() + self.hedge_after;
            let answered = tokio::select! {
                Some(answered) = attempts.next() => answered,
                () = sleep_until(hedge_at), if others.len() > 0 => {
                    let next = others.next().map(|next| self.attempt(next, deadline, patience, &question));
                    attempts.extend(next);
                    continue;
                }
            };
            match answered {
                (index, Ok(answer)) => {
                    self.prefer(index);
                    self.ever_answered.store(true, Ordering::Relaxed);
                    *lock(&self.last_error) = None;
                    return Ok(answer);
                }
                // An answer too, and the same from each.
                (_, Err(error)) if error.says_lease_gone() => return Err(error),
                (index, Err(error)) => {
                    self.fail(index, &error);
                    match others.next() {
                        Some(next) => {
                            attempts.push(self.attempt(next, deadline, patience, &question));
                        }
                        None if attempts.is_empty() => return Err(error),
                        None => {}
                    }
                }
            }
        }
    }

    /// Gives up on the endpoint's connection, after a stream of its own broke.
    pub fn fail(&self, index: usize, error: &StoreError) {
        *lock(&self.last_error) = Some(error.to_string());
        if error.says_lease_gone() {
            return;
        }
        *lock(&self.clients[index]) = None;
        // Unless another one answers first by now.
        if *self.first.borrow() == index {
            self.prefer((index + 1) % self.clients.len());
        }
    }

    /// Tells when another endpoint is asked first than before.
    pub fn preference(&self) -> watch::Receiver<usize> {
        self.first.subscribe()
    }

    pub fn url(&self, index: usize) -> &str {
        &self.config.endpoints[index]
    }

    fn prefer(&self, index: usize) {
        self.first
            .send_if_modified(|first| std::mem::replace(first, index) != index);
    }

    async fn attempt<T>(
        &self,
        index: usize,
        deadline: Instant,
        patience: Duration,
        question: &impl AsyncFn(usize, Client) -> Result<T, etcd_client::Error>,
    ) -> (usize, Result<T, StoreError>) {
        let url = self.url(index);
        let asked = timeout_at(deadline, async {
            let client = self.client(index).await?;
            question(index, client)
                .await
                .map_err(|error| StoreError::client(url, error))
        });
        let answer = asked
            .await
            .unwrap_or_else(|_| Err(StoreError::silence(url, patience)));
        (index, answer)
    }

    async fn client(&self, index: usize) -> Result<Client, StoreError> {
        let standing = lock(&self.clients[index]).clone();
        if let Some(client) = standing {
            return Ok(client);
        }
        let url = self.url(index);
        let options = self.options(url)?;
        let client = Client::connect([url], Some(options))
            .await
            .map_err(|error| StoreError::client(url, error))?;
        *lock(&self.clients[index]) = Some(client.clone());
        Ok(client)
    }

    /// Reads certificates and password each time: they are replaced on disk while we run.
    fn options(&self, url: &str) -> Result<ConnectOptions, StoreError> {
        let read = |path: &std::path::Path| {
            fs::read(path).map_err(|error| {
                StoreError::file(url, format!("{} cannot be read: {error}", path.display()))
            })
        };
        let mut options = ConnectOptions::new()
            .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(Tls { ca, identity }) = &self.config.tls {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
            if let Some(own) = identity {
                tls = tls.identity(Identity::from_pem(read(&own.cert)?, read(&own.key)?));
            }
            options = options.with_tls(tls);
        }
        if let Some(user) = &self.config.user {
            let password = String::from_utf8(read(&user.password_file)?).map_err(|_| {
                let path = user.password_file.display();
                StoreError::file(
                    url,
                    format!("{path} is not text; it should hold the password"),
                )
            })?;
            options = options.with_user(&user.name, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }
}

/// What is behind these locks is whole at any time, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
