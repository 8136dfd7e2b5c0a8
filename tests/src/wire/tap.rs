//! Taps at the switch's ports: every frame of the neighbour protocols that a node sends, whoever on it made it, XDP included.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::said::Spoken;
use crate::probe::socket::{PacketSocket, Receive};
use crate::wait;

/// A frame that a node sent.
#[derive(Clone)]
pub struct Sent {
    /// The node, counted from 0.
    pub node: usize,
    /// When it came to the switch.
    pub at: Instant,
    /// The frame.
    pub frame: Vec<u8>,
    /// What it says.
    pub spoken: Spoken,
}

/// Taps at the ports of all nodes. Dropping it ends it.
pub struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A place in what was sent; by default its begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place(usize);

#[derive(Default)]
struct Shared {
    sent: Mutex<Vec<Sent>>,
    stop: AtomicBool,
}

impl fmt::Debug for Sent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { node, spoken, .. } = self;
        write!(
            formatter,
            "node {node}, {:?} ago: {spoken:?}",
            self.at.elapsed()
        )
    }
}

impl Tap {
    /// Starts listening to sockets of [`PacketSocket::incoming`], each at the port of a node.
    pub fn start(ports: Vec<(usize, PacketSocket)>) -> Result<Tap> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || listen(&ports, &for_thread))?;
        Ok(Tap {
            shared,
            thread: Some(thread),
        })
    }

    /// What is sent next comes behind this place.
    pub fn place(&self) -> Result<Place> {
        Ok(Place(self.lock()?.len()))
    }

    /// What was sent since.
    pub fn since(&self, place: Place) -> Result<Vec<Sent>> {
        Ok(self.lock()?[place.0..].to_vec())
    }

    /// Everything so far.
    pub fn all(&self) -> Result<Vec<Sent>> {
        self.since(Place::default())
    }

    /// Waits until something like this is sent, or was, since.
    pub fn await_sent(
        &self,
        what: &str,
        since: Place,
        within: Duration,
        like: impl Fn(&Sent) -> bool,
    ) -> Result<Sent> {
        let found = wait::until(what, within, || {
            Ok(self.since(since)?.into_iter().find(|sent| like(sent)))
        });
        found.with_context(|| format!("sent meanwhile: {:#?}", self.since(since)))
    }

    fn lock(&self) -> Result<MutexGuard<'_, Vec<Sent>>> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(anyhow!("the tap has ended by itself"));
        }
        Ok(self.shared.lock())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What it would tell was told by `lock`.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(ports: &[(usize, PacketSocket)], shared: &Shared) -> Result<()> {
    let mut buffer = [0; 2048];
    while !shared.stop.load(Ordering::SeqCst) {
        for (node, port) in ports {
            while let Some(frame) = port.receive(&mut buffer)? {
                let at = Instant::now();
                let read = Spoken::read(frame);
                let spoken = read.with_context(|| format!("node {node} sent {frame:02x?}"))?;
                if let Some(spoken) = spoken {
                    let frame = frame.to_vec();
                    shared.lock().push(Sent {
                        node: *node,
                        at,
                        frame,
                        spoken,
                    });
                }
            }
        }
        let mut waiting: Vec<PollFd<'_>> = ports
            .iter()
            .map(|(_, port)| PollFd::new(port.as_fd(), PollFlags::POLLIN))
            .collect();
        // EINTR and a time-out both mean: look again.
        let _ = poll(&mut waiting, PollTimeout::from(20_u8));
    }
    Ok(())
}
