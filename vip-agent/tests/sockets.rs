//! What becomes of local connections when a shared IP goes: in a network namespace that each test
//! makes for itself, and that ends with its thread.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket},
};
use vip_agent::net::destroy_bound_to;

/// Longer than any busy machine takes, shorter than TCP.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` where the loopback has the addresses of `own` and `vip`.
fn staged(own: &'static str, vip: &'static str, test: fn(IpAddr, IpAddr)) {
    let outcome = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let why = format!("skipped: a network namespace cannot be made: {error}; run as root");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
            eprintln!("{why}");
            return;
        }
        ip("link set lo up");
        let address = |text: &str| text.parse().expect("an address");
        change("add", address(own));
        change("add", address(vip));
        test(address(own), address(vip));
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn change(verb: &str, address: IpAddr) {
    let rest = if address.is_ipv4() { "" } else { "nodad" };
    let rest = if verb == "add" { rest } else { "" };
    ip(&format!("addr {verb} {address} dev lo {rest}"));
    // The kernel takes an IPv6 address for its own a little later.
    let deadline = Instant::now() + PATIENCE;
    while verb == "add" && !is_local(address) {
        assert!(Instant::now() < deadline, "{address} gets no route");
    }
}

fn is_local(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    !ip(&format!("{family} route show table local {address}")).is_empty()
}

fn destroy(vip: IpAddr) -> usize {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            tokio::time::timeout(PATIENCE, destroy_bound_to(vip))
                .await
                .expect("the kernel answers")
        })
        .expect("root may")
}

/// The two ends of a connection: of who began it, and of who took it.
fn connection(from: IpAddr, listener: &TcpListener, to: IpAddr) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().expect("it is bound").port();
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let began = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let at = |ip, port| SockaddrStorage::from(SocketAddr::new(ip, port));
    bind(began.as_raw_fd(), &at(from, 0)).expect("the address is there");
    connect(began.as_raw_fd(), &at(to, port)).expect("somebody listens");
    // SAFETY: the descriptor is a TCP socket's, and nobody else's from here on.
    let began = unsafe { TcpStream::from_raw_fd(began.into_raw_fd()) };
    let (took, _) = listener.accept().expect("somebody came");
    for end in [&began, &took] {
        end.set_read_timeout(Some(PATIENCE)).expect("it is one");
    }
    (began, took)
}

fn is_aborted(end: &mut TcpStream) -> bool {
    let read = end.read(&mut [0; 8]);
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted)
}

fn works((one, other): &mut (TcpStream, TcpStream)) -> io::Result<()> {
    let mut heard = [0; 4];
    one.write_all(b"ping")?;
    other.read_exact(&mut heard)?;
    other.write_all(b"pong")?;
    one.read_exact(&mut heard)
}

/// Everything that has to do with `vip`, and something that has not.
fn connections_end_and_listeners_stay(own: IpAddr, vip: IpAddr) {
    let everywhere = TcpListener::bind("[::]:0").expect("the kernel has IPv6");
    let on_vip = TcpListener::bind((vip, 0)).expect("the address is there");
    let on_own = TcpListener::bind((own, 0)).expect("the address is there");
    let (_peer, mut to_vip) = connection(own, &on_vip, vip);
    let (_peer_of_mapped, mut to_vip_mapped) = connection(own, &everywhere, vip);
    let (mut from_vip, _peer_of_own) = connection(vip, &on_own, own);
    let (mut both, mut ends) = connection(vip, &on_vip, vip);
    let mut other = connection(own, &on_own, own);
    let mut other_mapped = connection(own, &everywhere, own);

    let server = UdpSocket::bind((vip, 0)).expect("the address is there");
    let connected = UdpSocket::bind((vip, 0)).expect("the address is there");
    connected.connect((own, 9)).expect("there is a route");
    for one in [&server, &connected] {
        one.set_read_timeout(Some(PATIENCE)).expect("it is one");
    }

    // As the agent does: the address first.
    change("del", vip);
    assert_eq!(destroy(vip), 6, "five ends of TCP and one of UDP");
    for (name, end) in [
        ("to the address", &mut to_vip),
        ("to the address, by an IPv6 socket", &mut to_vip_mapped),
        ("from the address", &mut from_vip),
        ("from the address to itself", &mut both),
        ("to the address from itself", &mut ends),
    ] {
        assert!(is_aborted(end), "{name}");
    }
    let heard = connected.recv(&mut [0; 8]);
    assert!(
        heard
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted),
        "{heard:?}"
    );
    works(&mut other).expect("it is not the address'");
    works(&mut other_mapped).expect("nor is this");

    change("add", vip);
    for listener in [&on_vip, &everywhere] {
        works(&mut connection(own, listener, vip)).expect("it listens as before");
    }
    let asking = UdpSocket::bind((own, 0)).expect("the address is there");
    let at = server.local_addr().expect("it is bound");
    asking.send_to(b"ping", at).expect("there is a route");
    assert_eq!(server.recv(&mut [0; 8]).expect("it serves as before"), 4);
}

#[test]
fn connections_of_an_ipv4_address_end_and_nothing_else_does() {
    staged("10.0.0.1", "10.0.0.100", connections_end_and_listeners_stay);
}

#[test]
fn connections_of_an_ipv6_address_end_and_nothing_else_does() {
    staged("fd00::1", "fd00::100", connections_end_and_listeners_stay);
}

#[test]
fn an_address_without_connections_is_no_error() {
    staged("10.0.0.1", "10.0.0.100", |_, vip| {
        assert_eq!(destroy(vip), 0);
    });
}
