//! Checks against servers and programs that are well, and that are ill in one way each.

mod exec;
mod http;
mod tls;

use std::{
    future::Future,
    io::Write as _,
    net::{TcpListener, TcpStream},
    sync::mpsc as blocking,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::Target;

/// What any verdict here takes at most on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// The timeout of checks that run into it.
const SHORT: Duration = Duration::from_millis(300);

struct Bench {
    health: Health,
    verdicts: UnboundedReceiver<Verdict>,
}

impl Bench {
    fn with(checks: &[CheckConfig]) -> Self {
        let (sender, verdicts) = unbounded_channel();
        let mut bench = Self {
            health: Health::new(sender),
            verdicts,
        };
        bench.set(checks);
        bench
    }

    fn set(&mut self, checks: &[CheckConfig]) {
        let checks = checks.iter().cloned().collect();
        self.health.set(checks).expect("a thread can be started");
    }

    fn next(&mut self) -> Verdict {
        // A timeout is made within a runtime.
        let verdict =
            block_on(async { tokio::time::timeout(PATIENCE, self.verdicts.recv()).await });
        verdict.expect("in time").expect("the checks go on")
    }

    /// Waits until the result is as `is_it` wants it.
    fn await_result(&mut self, is_it: impl Fn(&Result<(), String>) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_it(&self.next().result) {
            assert!(Instant::now() < until, "other verdicts only");
        }
    }
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(task)
}

fn check(target: Target) -> CheckConfig {
    CheckConfig {
        interval: Duration::from_secs(30),
        timeout: PATIENCE,
        ..CheckConfig::new(target)
    }
}

fn tcp(port: u16) -> CheckConfig {
    check(Target::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    })
}

/// What the first run comes to.
fn first(check: CheckConfig) -> Result<(), String> {
    Bench::with(&[check]).next().result
}

/// A server that does `each` with every connection, until the tests end. Returns its port.
fn serve(mut each: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            each(stream);
        }
    });
    port
}

/// A server that accepts connections and keeps them, without a word.
fn serve_in_silence() -> u16 {
    let mut kept = Vec::new();
    serve(move |stream| kept.push(stream))
}

fn unused_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Reads a request to the blank line that ends it.
fn read_request(stream: &mut impl std::io::Read) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        request.push(byte[0]);
    }
    String::from_utf8(request).expect("a request is text")
}

#[test]
fn who_accepts_connections_is_well_and_who_does_not_is_not() {
    assert_eq!(first(tcp(serve_in_silence())), Ok(()));
    let refused = first(tcp(unused_port())).expect_err("nobody listens");
    assert!(refused.starts_with("Connection refused"), "{refused}");
}

#[test]
fn a_host_may_be_a_name() {
    let named = |host: &str, port| {
        first(check(Target::Tcp {
            host: host.to_owned(),
            port,
        }))
    };
    assert_eq!(named("localhost", serve_in_silence()), Ok(()));
    // RFC 6761 §6.4: there is never a host of this name.
    let why = named("nobody.invalid", 1).expect_err("nobody has the name");
    assert!(why.starts_with("no address of nobody.invalid: "), "{why}");
}

#[test]
fn a_listener_that_closes_fails_and_one_that_comes_back_passes() {
    let port = unused_port();
    let often = CheckConfig {
        interval: Duration::from_millis(100),
        rise: 2,
        fall: 2,
        ..tcp(port)
    };
    let mut bench = Bench::with(&[often]);
    assert!(bench.next().result.is_err());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    bench.await_result(Result::is_ok);
    drop(listener);
    bench.await_result(Result::is_err);
}

#[test]
fn starts_keep_to_their_grid_however_long_a_run_takes() {
    let (sender, starts) = blocking::channel();
    let port = serve(move |mut stream| {
        // The test may have seen enough.
        let _ = sender.send(Instant::now());
        thread::sleep(Duration::from_millis(80));
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let interval = Duration::from_millis(100);
    let _bench = Bench::with(&[CheckConfig {
        interval,
        timeout: interval,
        ..http::check(&format!("http://127.0.0.1:{port}/"))
    }]);
    let start = || starts.recv_timeout(PATIENCE).expect("a start");
    let starts: Vec<Instant> = (0..20).map(|_| start()).collect();
    // With a run's time between them none would be so short; a busy machine makes some longer.
    let gaps = starts.windows(2).map(|pair| pair[1] - pair[0]);
    let on_time = gaps.filter(|gap| *gap < interval * 3 / 2).count();
    assert!(on_time >= 10, "{on_time} of 19");
}

#[test]
fn checks_that_stay_go_on_and_those_that_go_end() {
    let (sender, starts) = blocking::channel();
    let kept = serve(move |_| {
        let _ = sender.send(());
    });
    let (kept, gone) = (tcp(kept), tcp(serve_in_silence()));
    let mut bench = Bench::with(&[kept.clone(), gone.clone()]);
    let mut first = [bench.next().check, bench.next().check];
    first.sort();
    let mut both = [kept.clone(), gone.clone()];
    both.sort();
    assert_eq!(first, both);
    bench.set(std::slice::from_ref(&kept));
    bench.set(&[kept.clone(), gone.clone()]);
    // The one that was away begins anew, and has a first verdict again. The other has run once.
    assert_eq!(bench.next().check, gone);
    assert!(starts.recv_timeout(PATIENCE).is_ok());
    assert!(starts.recv_timeout(SHORT).is_err());
    assert!(bench.verdicts.try_recv().is_err());
}

#[test]
fn a_check_that_hangs_holds_up_no_other() {
    let silent = format!("http://127.0.0.1:{}/", serve_in_silence());
    let hangs = [
        http::check(&silent),
        check(Target::Exec(["/bin/sleep", "60"].map(str::to_owned).into())),
    ];
    let mut bench = Bench::with(&hangs);
    let begun = Instant::now();
    let [http, exec] = hangs;
    let well = tcp(serve_in_silence());
    bench.set(&[http, exec, well.clone()]);
    assert_eq!(bench.next().check, well);
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_connection_to_itself_is_none() {
    block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind(([127, 0, 0, 1], 0).into())
            .expect("some port is free");
        let own = socket.local_addr().expect("its address");
        let stream = socket.connect(own).await.expect("it finds itself");
        assert!(super::dial::is_to_itself(&stream));
        let port = serve_in_silence();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        assert!(!super::dial::is_to_itself(&stream.expect("it is there")));
    });
}
