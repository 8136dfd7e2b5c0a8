//! etcd's changes as they come, for a fault that has to follow one at once.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::etcd::Cluster;
use crate::wait;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// Written after the watch was begun, over and over until it is heard: `etcdctl watch` does not say when it stands.
const PROOF: &str = "/vip-agent/watched";

/// A running `etcdctl watch` on all keys. Dropping it ends it.
pub struct Watch {
    child: Child,
    changes: Receiver<Change>,
}

/// A key that was put or deleted.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it was heard of.
    pub at: Instant,
    /// The key.
    pub key: String,
    /// What was put; `None` if it was deleted.
    pub value: Option<String>,
}

impl Watch {
    /// Begins to watch, by a member that runs; what changes from now on is heard.
    pub fn begin(cluster: &Cluster, index: usize) -> Result<Watch> {
        let arguments = ["watch", "--prefix", "/vip-agent/"];
        let mut command = cluster.etcdctl_command(index, &arguments)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting `etcdctl watch`")?;
        let out = child.stdout.take().context("its stdout is a pipe")?;
        let (send, changes) = channel();
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                let mut lines = BufReader::new(out).lines();
                while let Some(change) = next_change(&mut lines) {
                    if send.send(change).is_err() {
                        return;
                    }
                }
            })?;
        let watch = Watch { child, changes };
        wait::until_true("`etcdctl watch` to stand", READY_WITHIN, || {
            cluster.etcdctl(index, &["put", PROOF, ""])?;
            Ok(watch.changes.try_iter().any(|change| change.key == PROOF))
        })?;
        Ok(watch)
    }

    /// Waits for a change like this; those before it are gone.
    pub fn next_like(
        &self,
        what: &str,
        within: Duration,
        like: impl Fn(&Change) -> bool,
    ) -> Result<Change> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.changes.recv_timeout(left) {
                Ok(change) if like(&change) => return Ok(change),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("waited {within:?} in vain for {what}"),
                Err(RecvTimeoutError::Disconnected) => bail!("`etcdctl watch` has ended by itself"),
            }
        }
    }

    /// What has changed since it was last asked.
    pub fn so_far(&self) -> Vec<Change> {
        self.changes.try_iter().collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The namespace's end kills whatever is missed here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `etcdctl watch` prints PUT, the key and the value, or DELETE, the key and an empty line.
fn next_change(lines: &mut std::io::Lines<BufReader<ChildStdout>>) -> Option<Change> {
    let mut line = || lines.next()?.ok();
    let is_put = line()? == "PUT";
    let at = Instant::now();
    let (key, value) = (line()?, line()?);
    Some(Change {
        at,
        key,
        value: is_put.then_some(value),
    })
}
