//! Sockets for whole frames, which `std` does not know.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{MsgFlags, SockaddrStorage, recv, send, setsockopt, sockopt};

/// Room for a burst that arrives while we are not scheduled.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A packet socket, bound to one interface and one EtherType. It gets frames for any MAC address, and none that the interface itself sends.
pub struct PacketSocket(OwnedFd);

/// An ICMP or ICMPv6 socket. Linux finds route and neighbour for what it sends, as for any program.
pub struct IcmpSocket(OwnedFd);

/// Something that can be read without waiting.
pub trait Receive: AsFd {
    /// The next frame or packet, or `None` when there is none now.
    fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        match recv(self.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(&buffer[..length])),
            // ENETDOWN is told once when the interface goes down; the socket works on when it comes back.
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ENETDOWN) => Ok(None),
            Err(error) => Err(error).context("receiving"),
        }
    }
}

impl PacketSocket {
    /// Opens it in the calling thread's network namespace. `ethertype` as in [`libc::ETH_P_ARP`]; of 0 nothing is received.
    pub fn open(interface: &str, ethertype: libc::c_int) -> Result<PacketSocket> {
        let protocol = u16::try_from(ethertype)
            .context("an EtherType has 16 bits")?
            .to_be();
        let index = if_nametoindex(interface).with_context(|| format!("looking up {interface}"))?;
        let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, libc::c_int::from(protocol))
            .context("opening a packet socket")?;
        // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family =
            u16::try_from(libc::AF_PACKET).context("an address family has 16 bits")?;
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(index).context("an interface index above i32")?;
        let length = u32::try_from(size_of_val(&address)).context("a socket address is small")?;
        // SAFETY: `address` is a filled sockaddr_ll of exactly `length` bytes, and outlives the call.
        let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("binding a packet socket to {interface}"));
        }
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .context("enlarging a receive buffer")?;
        Ok(PacketSocket(socket))
    }

    /// Opens one for all that comes in by an interface, of any EtherType.
    pub fn incoming(interface: &str) -> Result<PacketSocket> {
        let socket = PacketSocket::open(interface, libc::ETH_P_ALL)?;
        let on: libc::c_int = 1;
        let length = u32::try_from(size_of_val(&on)).context("an option is small")?;
        // SAFETY: `on` is an int of exactly `length` bytes, and outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("listening to what comes in by {interface}"));
        }
        Ok(socket)
    }

    /// Sends a frame, or says why not.
    pub fn try_send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)
    }

    /// Sends a frame. An interface that is down or full loses it, as a wire would.
    pub fn send(&self, frame: &[u8]) {
        let _ = send(self.0.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
    }
}

impl IcmpSocket {
    /// Opens it in the calling thread's network namespace, connected to one address.
    pub fn connect(to: IpAddr) -> Result<IcmpSocket> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
            IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
        };
        let socket = socket(family, libc::SOCK_RAW, protocol).context("opening an ICMP socket")?;
        let address = SockaddrStorage::from(SocketAddr::new(to, 0));
        nix::sys::socket::connect(socket.as_raw_fd(), &address)
            .with_context(|| format!("connecting an ICMP socket to {to}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
            .context("enlarging a receive buffer")?;
        Ok(IcmpSocket(socket))
    }

    /// Sends a message. One that finds no neighbour is lost, which the missing answer tells.
    pub fn send(&self, message: &[u8]) {
        let _ = send(self.0.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT);
    }
}

impl Receive for PacketSocket {}

impl Receive for IcmpSocket {
    fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(&buffer[..length])),
            // A connected ICMP socket is also told of failed neighbour look-ups (EHOSTUNREACH); they are no answers.
            Err(_) => Ok(None),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for IcmpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
