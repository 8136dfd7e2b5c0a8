//! Which member of the cluster to ask.
//!
//! One connection per endpoint, made when it is needed and made anew when it failed. A question
//! that is safe to ask twice is asked of the next endpoint too when the first is slow to answer;
//! whichever answers is asked first from then on.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use etcd_client::Client;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{connect::Connector, error::StoreError, lock, outage::Outage};
use crate::config::EtcdConfig;

/// How a question may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Of one endpoint: it changes something.
    Once,
    /// Of several at a time: any of the answers will do.
    Hedged,
}

/// A connection to an endpoint. Another one to the same endpoint is not equal to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// The endpoint's.
    pub index: usize,
    serial: u64,
}

#[cfg(test)]
impl Connection {
    pub const fn of_test(index: usize, serial: u64) -> Self {
        Self { index, serial }
    }
}

/// How etcd has been answering.
#[derive(Clone, Debug)]
pub struct Health {
    /// The endpoint that is asked first.
    pub endpoint: String,
    /// What last went wrong at each endpoint, since something last went right.
    pub last_error: Option<String>,
    /// Whether anything was ever answered.
    pub ever_answered: bool,
}

pub(super) struct Endpoints {
    urls: Vec<String>,
    connector: Connector,
    /// Silence after which a hedged question goes to the next endpoint as well.
    hedge_after: Duration,
    clients: Vec<Mutex<Option<(Connection, Client)>>>,
    /// How many connections were made.
    made: AtomicU64,
    /// The endpoint that is asked first: the one that answered last.
    first: watch::Sender<usize>,
    outage: Mutex<Outage>,
}

impl Endpoints {
    pub fn new(config: &EtcdConfig, ttl: Duration) -> Self {
        Self {
            hedge_after: ttl / 12,
            clients: config.endpoints.iter().map(|_| Mutex::new(None)).collect(),
            made: AtomicU64::new(0),
            first: watch::Sender::new(0),
            outage: Mutex::new(Outage::new(config.endpoints.len(), ttl / 6)),
            connector: Connector::new(config),
            urls: config.endpoints.clone(),
        }
    }

    pub fn health(&self) -> Health {
        let outage = lock(&self.outage);
        Health {
            endpoint: self.url(*self.first.borrow()).to_owned(),
            last_error: outage.errors(),
            ever_answered: outage.ever_answered(),
        }
    }

    /// Asks `question` of the first endpoint, and of the others as `ask` allows, until one answers
    /// or `patience` runs out. The question is given a connection, and the client for it.
    pub async fn ask<T>(
        &self,
        ask: Ask,
        patience: Duration,
        question: impl AsyncFn(Connection, Client) -> Result<T, etcd_client::Error>,
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
                    self.note_answer(index);
                    return Ok(answer);
                }
                // An answer too, and the same from each.
                (index, Err(error)) if error.says_lease_gone() => {
                    self.note_answer(index);
                    return Err(error);
                }
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
        if error.says_lease_gone() {
            return;
        }
        let text = error.to_string();
        if lock(&self.outage).failed(index, text, Instant::now()) {
            let error = lock(&self.outage).errors().unwrap_or_default();
            tracing::warn!(endpoints = ?self.urls, error, "etcd is unavailable");
        }
        *lock(&self.clients[index]) = None;
        // It is told of also where there is no other to ask first.
        self.first.send_modify(|first| {
            // Unless another one answers first by now.
            if *first == index {
                *first = (index + 1) % self.clients.len();
            }
        });
    }

    /// Waits until this connection is no longer the one to use: another endpoint is asked first, or it
    /// was given up. Returns the endpoint that is asked first now.
    pub async fn left(&self, connection: Connection) -> usize {
        let mut preference = self.first.subscribe();
        let is_left = |first: &usize| *first != connection.index || !self.is_in_use(connection);
        // The sender lives as long as we do.
        let left = preference.wait_for(is_left).await;
        left.map_or(connection.index, |first| *first)
    }

    fn is_in_use(&self, connection: Connection) -> bool {
        let standing = lock(&self.clients[connection.index]);
        standing.as_ref().is_some_and(|(one, _)| *one == connection)
    }

    pub fn url(&self, index: usize) -> &str {
        &self.urls[index]
    }

    /// Asks something that is only good to know: what comes of it counts for nothing else.
    pub async fn ask_aside<T>(
        &self,
        patience: Duration,
        question: impl AsyncFn(Client) -> Result<T, etcd_client::Error>,
    ) -> Result<(&str, T), StoreError> {
        let index = *self.first.borrow();
        let ask = async |_, client| question(client).await;
        let (_, answer) = self
            .attempt(index, Instant::now() + patience, patience, &ask)
            .await;
        Ok((self.url(index), answer?))
    }

    fn note_answer(&self, index: usize) {
        if let Some(after) = lock(&self.outage).answered(Instant::now()) {
            let (endpoint, after_ms) = (self.url(index), crate::election::to_ms(after));
            tracing::info!(endpoint, after_ms, "etcd is available again");
        }
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
        question: &impl AsyncFn(Connection, Client) -> Result<T, etcd_client::Error>,
    ) -> (usize, Result<T, StoreError>) {
        let url = self.url(index);
        let asked = timeout_at(deadline, async {
            let (connection, client) = self.client(index).await?;
            question(connection, client)
                .await
                .map_err(|error| StoreError::client(url, error))
        });
        let answer = asked
            .await
            .unwrap_or_else(|_| Err(StoreError::silence(url, patience)));
        (index, answer)
    }

    async fn client(&self, index: usize) -> Result<(Connection, Client), StoreError> {
        let standing = lock(&self.clients[index]).clone();
        if let Some(standing) = standing {
            return Ok(standing);
        }
        let client = self.connector.connect(self.url(index)).await?;
        let serial = self.made.fetch_add(1, Ordering::Relaxed);
        let made = (Connection { index, serial }, client);
        *lock(&self.clients[index]) = Some(made.clone());
        Ok(made)
    }
}
