//! Since when etcd has had a leader: each member is asked, all the time, for a linearizable read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::netns::Netns;

/// How often a member is asked.
const TICK: Duration = Duration::from_millis(50);
/// A question that finds no leader is lost, also when there is one a moment later: a new one is asked soon.
const PATIENCE: Duration = Duration::from_millis(300);

/// Watches every member over its own loopback. Dropping it ends that.
pub struct Health {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Change>>>,
    threads: Vec<JoinHandle<()>>,
}

/// A member began or ceased to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the question was sent that showed it.
    pub at: Instant,
    /// Which member.
    pub member: usize,
    /// Whether it answers.
    pub answers: bool,
}

impl Health {
    /// Begins to ask the members that live in these namespaces.
    pub fn watch(members: &[Netns]) -> Result<Health> {
        let stop = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut threads = Vec::new();
        for (member, netns) in members.iter().cloned().enumerate() {
            let (stop, log) = (Arc::clone(&stop), Arc::clone(&log));
            let name = format!("health of etcd {member}");
            let ask = move || {
                if netns.enter().is_ok() {
                    ask(member, &stop, &log);
                }
            };
            threads.push(thread::Builder::new().name(name).spawn(ask)?);
        }
        Ok(Health { stop, log, threads })
    }

    /// All changes so far, in order.
    pub fn changes(&self) -> Result<Vec<Change>> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(anyhow!("etcd's health is no longer watched"));
        }
        let mut changes = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        changes.sort_by_key(|change| change.at);
        Ok(changes)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // It had nothing to tell.
            let _ = thread.join();
        }
    }
}

fn ask(member: usize, stop: &AtomicBool, log: &Mutex<Vec<Change>>) {
    let mut answered = false;
    while !stop.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answers = healthy().unwrap_or(false);
        if answers != std::mem::replace(&mut answered, answers) {
            let change = Change {
                at: asked,
                member,
                answers,
            };
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(change);
        }
        thread::sleep(TICK);
    }
}

/// `/health` answers after a read by consensus.
fn healthy() -> std::io::Result<bool> {
    let address = ([127, 0, 0, 1], 2379).into();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.windows(4).any(|word| word == b"true"))
}
