//! A TCP connection that says something every few milliseconds, and notices what becomes of it.

use std::io::{Read, Write};
use std::mem;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc;

use crate::netns::Netns;
use crate::probe::client::in_real_time;

/// Between an answer and the next message.
const PAUSE: Duration = Duration::from_millis(2);
/// No answer for so long is the connection's end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running conversation. Dropping it ends it.
pub struct Conversation {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<Instant>>>,
    asking: Option<JoinHandle<Result<u32>>>,
    answering: Option<JoinHandle<Result<u32>>>,
}

/// What a conversation noticed.
#[derive(Clone, Copy, Debug)]
pub struct Noticed {
    /// How many messages were answered.
    pub answered: usize,
    /// The longest time from one answer to the next.
    pub longest_gap: Duration,
    /// Segments that either side had to send again: what was lost on the way, however busy the machine is.
    pub sent_again: u32,
}

impl Conversation {
    /// Connects to an address that the server's machine has now.
    pub fn begin(client: &Netns, server: &Netns, address: IpAddr) -> Result<Conversation> {
        let (listener, at) = server.within(|| {
            let listener = TcpListener::bind((address, 0))
                .with_context(|| format!("listening on {address}"))?;
            let at = listener.local_addr()?;
            Ok((listener, at))
        })?;
        // A socket stays in the namespace that it was made in.
        let client = client.within(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(Mutex::new(Vec::new()));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&answered));
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        Ok(Conversation {
            stop,
            answered,
            asking: Some(spawn("asking").spawn(move || ask(client, &stopped, &noted))?),
            answering: Some(spawn("answering").spawn(move || answer(server))?),
        })
    }

    /// How many messages were answered so far.
    pub fn answered(&self) -> usize {
        lock(&self.answered).len()
    }

    /// Ends it and tells what was noticed since an instant. Fails if it had ended by itself.
    pub fn end(mut self, since: Instant) -> Result<Noticed> {
        self.stop.store(true, Ordering::SeqCst);
        let mut sent_again = 0;
        for side in [self.asking.take(), self.answering.take()] {
            let side = side.context("a conversation ends once")?;
            sent_again += side.join().map_err(|_| anyhow!("it panicked"))??;
        }
        let answered = lock(&self.answered);
        let gaps = answered.windows(2).map(|pair| pair[1] - pair[0]);
        let since_then = answered.iter().zip(gaps).filter(|(at, _)| **at >= since);
        Ok(Noticed {
            answered: answered.iter().filter(|at| **at >= since).count(),
            longest_gap: since_then.map(|(_, gap)| gap).max().unwrap_or_default(),
            sent_again,
        })
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn lock(answered: &Mutex<Vec<Instant>>) -> MutexGuard<'_, Vec<Instant>> {
    answered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(mut stream: TcpStream, stopped: &AtomicBool, answered: &Mutex<Vec<Instant>>) -> Result<u32> {
    in_real_time();
    let mut number = 0_u64;
    while !stopped.load(Ordering::SeqCst) {
        let message = number.to_be_bytes();
        stream
            .write_all(&message)
            .context("the connection broke, saying something")?;
        let mut echo = [0; 8];
        stream.read_exact(&mut echo).with_context(|| {
            let last = lock(answered).last().map(Instant::elapsed);
            format!("the connection broke, waiting for answer {number}; the last came {last:?} ago")
        })?;
        ensure!(echo == message, "another answer than was asked for");
        lock(answered).push(Instant::now());
        number += 1;
        thread::sleep(PAUSE);
    }
    sent_again(&stream)
}

fn answer(mut stream: TcpStream) -> Result<u32> {
    in_real_time();
    let mut message = [0; 8];
    loop {
        let length = stream
            .read(&mut message)
            .context("the connection broke at the server's side")?;
        if length == 0 {
            return sent_again(&stream);
        }
        stream.write_all(&message[..length])?;
    }
}

/// TCP_INFO's `tcpi_total_retrans`.
fn sent_again(stream: &TcpStream) -> Result<u32> {
    // SAFETY: tcp_info is plain old data, for which all zeroes is a valid value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = u32::try_from(size_of_val(&info))?;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is as long, and outlives the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    ensure!(
        result == 0,
        "asking TCP_INFO: {}",
        std::io::Error::last_os_error()
    );
    Ok(info.tcpi_total_retrans)
}
