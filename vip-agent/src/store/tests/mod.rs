//! The store against a real etcd.

mod confirm;
mod drains;
mod etcd;
mod owners;

use std::time::Duration;

use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedReceiver},
    task::LocalSet,
};

use super::{Store, StoreEvent};
use etcd::{Etcd, PREFIX};

/// Of the lease: what may take a TTL may take this long on a busy machine.
const TTL: Duration = Duration::from_secs(30);

/// Runs a test as the agent runs: on one thread.
fn run(test: impl AsyncFnOnce()) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("threads can be made");
    LocalSet::new().block_on(&runtime, test());
}

fn store(etcd: &Etcd) -> (Store, UnboundedReceiver<StoreEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    (Store::new(&etcd.config(), "a", TTL, sender), events)
}
