//! What etcd has to do, by its own count (`/metrics`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::etcd::Cluster;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(5);

/// What all members together counted in a stretch of time.
#[derive(Clone, Debug)]
pub struct Load {
    /// How long it was.
    pub lasted: Duration,
    /// What was asked of etcd, by the method's name: calls, and messages on streams.
    pub requests: BTreeMap<String, u64>,
    /// Bytes that clients sent.
    pub received_bytes: u64,
    /// Bytes that clients were sent.
    pub sent_bytes: u64,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<String, u64>,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Load {
    /// Lets so much time pass, and counts.
    pub fn at_rest(cluster: &Cluster, duration: Duration) -> Result<Load> {
        let pass = || wait::holds("time to pass", duration, || Ok(true));
        Load::of(cluster, pass)
    }

    /// Counts while something is done.
    pub fn of(cluster: &Cluster, task: impl FnOnce() -> Result<()>) -> Result<Load> {
        let before = count(cluster)?;
        let began = Instant::now();
        task()?;
        let after = count(cluster)?;
        let requests = after.requests.into_iter().map(|(method, count)| {
            let old = before.requests.get(&method).copied().unwrap_or_default();
            (method, count - old)
        });
        Ok(Load {
            lasted: began.elapsed(),
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            received_bytes: after.received_bytes - before.received_bytes,
            sent_bytes: after.sent_bytes - before.sent_bytes,
        })
    }

    /// Requests per second, of all methods together.
    pub fn requests_per_s(&self) -> f64 {
        let all: u64 = self.requests.values().sum();
        self.per_s(all)
    }

    /// As one line.
    pub fn told(&self) -> String {
        let methods = self.requests.iter();
        let methods: Vec<String> = methods
            .map(|(method, count)| format!("{method} {:.1}", self.per_s(*count)))
            .collect();
        format!(
            "{:.1} requests/s ({}), {:.0} bytes/s in, {:.0} bytes/s out",
            self.requests_per_s(),
            methods.join(", "),
            self.per_s(self.received_bytes),
            self.per_s(self.sent_bytes)
        )
    }

    fn per_s(&self, count: u64) -> f64 {
        // Counts of seconds lie far below 2^52.
        count as f64 / self.lasted.as_secs_f64()
    }
}

fn count(cluster: &Cluster) -> Result<Counts> {
    let mut counts = Counts::default();
    for index in cluster.running() {
        let text = cluster.netns(index).within(metrics)?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            add(&mut counts, line).with_context(|| format!("etcd's metrics say {line}"))?;
        }
    }
    ensure!(
        !counts.requests.is_empty() && counts.sent_bytes > 0,
        "etcd's metrics tell of no request"
    );
    Ok(counts)
}

fn add(counts: &mut Counts, line: &str) -> Result<()> {
    let Some((name, value)) = line.rsplit_once(' ') else {
        return Ok(());
    };
    let number = || -> Result<u64> {
        let value: f64 = value.parse()?;
        // They are counts, though large ones are written as 1.2e+06.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(value as u64)
    };
    // What came in: one message of each plain call, any number on a stream.
    if name.starts_with("grpc_server_msg_received_total{") {
        let method = label(name, "grpc_method").context("it names no method")?;
        *counts.requests.entry(method.to_owned()).or_default() += number()?;
    } else if name == "etcd_network_client_grpc_received_bytes_total" {
        counts.received_bytes += number()?;
    } else if name == "etcd_network_client_grpc_sent_bytes_total" {
        counts.sent_bytes += number()?;
    }
    Ok(())
}

fn label<'n>(name: &'n str, label: &str) -> Option<&'n str> {
    let (_, rest) = name.split_once(&format!("{label}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// Asked in the clear over the loopback of the calling thread's namespace.
fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 2379))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "etcd answered {}",
        answer.lines().next().unwrap_or_default()
    );
    Ok(answer)
}
