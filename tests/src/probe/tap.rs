//! A tap on a node's interface: what reaches the node's own stack. Native XDP runs before it, so a frame that XDP answered or dropped is not seen.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pnet::packet::Packet;
use pnet::packet::arp::{ArpOperations, ArpPacket};
use pnet::packet::ethernet::EthernetPacket;

use super::socket::{PacketSocket, Receive};
use crate::netns::Netns;

/// Counts the ARP requests that come in for one address.
pub struct ArpTap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl ArpTap {
    /// Starts counting requests for `address` on an interface.
    pub fn start(netns: &Netns, interface: &str, address: IpAddr) -> Result<ArpTap> {
        let interface = interface.to_owned();
        let socket = netns.within(|| PacketSocket::open(&interface, libc::ETH_P_ARP))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || count(&socket, address, &stopped))?;
        Ok(ArpTap {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends counting and returns the number.
    pub fn finish(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("a tap ends once")?;
        thread.join().map_err(|_| anyhow!("the tap panicked"))?
    }
}

impl Drop for ArpTap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn count(socket: &PacketSocket, address: IpAddr, stopped: &AtomicBool) -> Result<usize> {
    let mut buffer = [0; 2048];
    let mut seen = 0;
    while !stopped.load(Ordering::SeqCst) {
        while let Some(frame) = socket.receive(&mut buffer)? {
            seen += usize::from(asks_for(frame, address));
        }
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        // EINTR and a time-out both mean: look again.
        let _ = poll(&mut waiting, PollTimeout::from(20_u8));
    }
    Ok(seen)
}

fn asks_for(frame: &[u8], address: IpAddr) -> bool {
    let Some(ethernet) = EthernetPacket::new(frame) else {
        return false;
    };
    ArpPacket::new(ethernet.payload()).is_some_and(|arp| {
        arp.get_operation() == ArpOperations::Request
            && IpAddr::from(arp.get_target_proto_addr()) == address
    })
}
