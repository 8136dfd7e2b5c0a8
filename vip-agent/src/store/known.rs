//! What is known of everything under the prefix, so that it need not be read whole each time.
//!
//! A confirming read asks, in one transaction that is linearizable (etcd reads so unless each single
//! read in it asks for less), for three things: what was changed since the revision R that is known, how
//! many keys there are now, and of which version our own member key is. Put together with what is
//! known that is everything there is now, for of one history:
//!
//! - Each key that is there now was last changed at R or before, and is then there as it is known, or
//!   after R, and is then in the answer.
//! - A key that is known, was deleted and made anew was changed after R.
//! - One that is known and is gone is missing in the count. Nothing makes up for it there: whatever else
//!   is there and was not known was made after R, is in the answer, and is counted already.
//!
//! It would not do for another history, such as that of a backup that was restored, in which all may have
//! been otherwise at R. An etcd process never goes back behind what it has shown. So what is known
//! was read whole from one member over one connection, holds for answers of the same member over
//! the same connection, and only for as long as the watch that runs on this connection does: a restored
//! member is another process, and the end of the old one ends the connection and all that is on it. A
//! request that fails gives its connection up ([`Endpoints::fail`]), and what is known with it. That
//! cluster, Raft term and our own member key's version are the same, and that the revision did not fall,
//! is checked because it costs next to nothing.
//!
//! [`Endpoints::fail`]: super::endpoints::Endpoints::fail

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    endpoints::Connection,
    keys::Keys,
    records::{self, Entry},
};
use crate::election::{Snapshot, Version};

/// Who answered, and for which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub cluster_id: u64,
    pub member_id: u64,
    pub raft_term: u64,
    pub revision: i64,
}

/// Everything under the prefix as it was at one revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    head: Head,
    /// Of each key, also of those that are none of ours.
    versions: BTreeMap<Vec<u8>, Version>,
    snapshot: Snapshot,
}

/// What was answered since.
pub(super) struct News<'a> {
    pub head: Head,
    /// Of our own member key.
    pub member: Option<Version>,
    /// What was changed after the revision that was known.
    pub changed: Vec<Entry<'a>>,
    /// How many keys there are.
    pub count: i64,
}

impl Known {
    /// From a read of everything.
    pub fn read<'a>(keys: &Keys, head: Head, entries: impl IntoIterator<Item = Entry<'a>>) -> Self {
        let snapshot = Snapshot {
            cluster_id: head.cluster_id,
            raft_term: head.raft_term,
            revision: head.revision,
            ..Snapshot::default()
        };
        let mut known = Self {
            head,
            versions: BTreeMap::new(),
            snapshot,
        };
        for entry in entries {
            known.put(keys, entry);
        }
        known
    }

    /// From now on.
    pub fn first_unknown(&self) -> i64 {
        self.head.revision + 1
    }

    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// What is there now, if the news tell; `own` is our member key.
    pub fn after(mut self, keys: &Keys, own: &str, news: News<'_>) -> Option<Self> {
        let (before, now) = (self.head, news.head);
        let is_same = Head {
            revision: before.revision,
            ..now
        } == before;
        let is_later = |entry: &Entry| {
            (self.first_unknown()..=now.revision).contains(&entry.version.mod_revision)
        };
        if !is_same || now.revision < before.revision || !news.changed.iter().all(is_later) {
            return None;
        }
        for entry in news.changed {
            self.put(keys, entry);
        }
        let count = i64::try_from(self.versions.len()).ok()?;
        let member = self.versions.get(own.as_bytes()).copied();
        if count != news.count || member != news.member {
            return None;
        }
        self.head = now;
        self.snapshot.revision = now.revision;
        Some(self)
    }

    fn put(&mut self, keys: &Keys, entry: Entry<'_>) {
        self.versions.insert(entry.key.to_vec(), entry.version);
        records::put(&mut self.snapshot, keys, entry);
    }
}

/// What is known over the connection that the watch runs on.
#[derive(Default)]
pub(super) struct Basis(RefCell<State>);

#[derive(Default)]
struct State {
    watched: Option<Watched>,
    known: Option<Known>,
    streams: u64,
}

/// A stream of the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    connection: Connection,
    stream: u64,
}

impl Basis {
    /// A stream of the watch runs on this connection, until what is returned is dropped.
    pub fn watch(&self, connection: Connection) -> Watching<'_> {
        let mut state = self.0.borrow_mut();
        state.streams += 1;
        let stream = state.streams;
        state.known = None;
        let watched = Watched { connection, stream };
        state.watched = Some(watched);
        Watching(self, watched)
    }

    /// The stream of the watch on this connection, and the first revision that is not known over it.
    pub fn over(&self, connection: Connection) -> (Option<Watched>, Option<i64>) {
        let state = self.0.borrow();
        let watched = state.watched.filter(|one| one.connection == connection);
        let known = state.known.as_ref().filter(|_| watched.is_some());
        (watched, known.map(Known::first_unknown))
    }

    /// What is known, if it is from that revision and the stream has not ended.
    pub fn take(&self, watched: Option<Watched>, first_unknown: i64) -> Option<Known> {
        let mut state = self.0.borrow_mut();
        if watched.is_none() || state.watched != watched {
            return None;
        }
        let is_it = |known: &mut Known| known.first_unknown() == first_unknown;
        state.known.take_if(is_it)
    }

    /// Keeps what was read while a stream ran, unless it has ended.
    pub fn keep(&self, watched: Option<Watched>, known: Known) {
        let mut state = self.0.borrow_mut();
        if watched.is_some() && state.watched == watched {
            state.known = Some(known);
        }
    }
}

/// For as long as a stream of the watch runs.
pub(super) struct Watching<'b>(&'b Basis, Watched);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.borrow_mut();
        // Unless another one has begun.
        if state.watched == Some(self.1) {
            state.watched = None;
            state.known = None;
        }
    }
}

#[cfg(test)]
mod tests;
