//! Health checks: run at their intervals, and counted.
//!
//! They run on a thread of their own: whatever a check does, look a name up or start a program, no
//! renewal of the lease waits for it. What they come to is told on a channel, and is for others to
//! make something of.

mod dial;
mod exec;
mod http;
mod runner;
mod streak;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::mpsc as blocking,
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use crate::config::CheckConfig;

/// At the agent's end, for programs that were killed to be waited for. A name that is still being
/// looked up holds up no exit.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// What a check has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which check.
    pub check: CheckConfig,
    /// It passes, or why it does not, in a line.
    pub result: Result<(), String>,
}

/// Runs checks until it is dropped: programs that still run then are killed.
pub struct Health {
    verdicts: UnboundedSender<Verdict>,
    /// None before there was anything to check.
    thread: Option<Thread>,
}

struct Thread {
    checks: UnboundedSender<BTreeSet<CheckConfig>>,
    ended: blocking::Receiver<()>,
}

impl Health {
    /// Runs none yet. The first verdict on a check comes after its first run, later ones when it changes, or
    /// when it fails for another reason than was told.
    pub fn new(verdicts: UnboundedSender<Verdict>) -> Self {
        Self {
            verdicts,
            thread: None,
        }
    }

    /// Runs these, and no others. Those that ran before go on as if nothing had been.
    pub fn set(&mut self, checks: BTreeSet<CheckConfig>) -> io::Result<()> {
        if self.thread.is_none() && checks.is_empty() {
            return Ok(());
        }
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start(self.verdicts.clone())?),
        };
        // It listens for as long as it is not dropped.
        let _ = thread.checks.send(checks);
        Ok(())
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if let Some(Thread { checks, ended }) = self.thread.take() {
            drop(checks);
            let _ = ended.recv_timeout(2 * LAST_WAIT);
        }
    }
}

impl Thread {
    fn start(verdicts: UnboundedSender<Verdict>) -> io::Result<Self> {
        let (sender, orders) = unbounded_channel();
        let (end, ended) = blocking::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("health")
            .build()?;
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                runtime.block_on(keep(orders, verdicts));
                runtime.shutdown_timeout(LAST_WAIT);
                // Who dropped us may have ceased to wait.
                let _ = end.send(());
            })?;
        Ok(Self {
            checks: sender,
            ended,
        })
    }
}

/// Keeps a task for each check that is wanted.
async fn keep(
    mut orders: UnboundedReceiver<BTreeSet<CheckConfig>>,
    verdicts: UnboundedSender<Verdict>,
) {
    let mut running: BTreeMap<CheckConfig, JoinHandle<()>> = BTreeMap::new();
    while let Some(wanted) = orders.recv().await {
        running.retain(|check, task| {
            let stays = wanted.contains(check);
            if !stays {
                task.abort();
            }
            stays
        });
        for check in wanted {
            running.entry(check).or_insert_with_key(|check| {
                tokio::spawn(runner::run(check.clone(), verdicts.clone()))
            });
        }
    }
}
