//! For tests against the real kernel: a veth pair `va`, `vb` in a network namespace that each test makes
//! for itself, and that ends with its thread.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use tokio::runtime::Runtime;

/// The MAC of `va`.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Runs `test` with the index of `va`, where namespaces are allowed.
pub fn staged(test: fn(u32)) {
    let outcome = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let why = format!("skipped: a network namespace cannot be made: {error}; run as root");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
            eprintln!("{why}");
            return;
        }
        ip("link add va address 02:00:00:00:00:01 type veth peer name vb");
        for end in ["va", "vb"] {
            // The kernel's own IPv6 addresses are settled at once, and nothing more is heard of them.
            let no_dad = format!("/proc/sys/net/ipv6/conf/{end}/accept_dad");
            fs::write(no_dad, "0").expect("root may");
            ip(&format!("link set {end} up"));
        }
        until_running("va");
        test(if_nametoindex("va").expect("it was just made"));
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Waits for a link that was switched on to have its carrier noticed, for which the kernel takes up
/// to a second; before that it sends nothing.
pub fn until_running(link: &str) {
    let start = Instant::now();
    while !ip(&format!("link show dev {link}")).contains("state UP") {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{link} is not up"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}
