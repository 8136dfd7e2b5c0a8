//! Services beside the agents that are ill, each in a way of its own: who serves then, and what is said of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, scenario};
use vip_tests::etcd_watch::Watch;
use vip_tests::failover::{
    SETTLED_WITHIN, STEADY, agents_up, epochs, fail_over, never_two, unnoticed, up,
};
use vip_tests::node::Node;
use vip_tests::probe::Probe;
use vip_tests::probe::client::Mark;
use vip_tests::{say, wait};

/// Where the services listen, each on its own node.
const PORT: u16 = 7070;
const INTERVAL: Duration = Duration::from_millis(300);
const FALL: u32 = 3;
/// From the last check that passed to the hand-over, and that.
const MOVED: Duration = Duration::from_millis(1000);
/// What a busy two-core machine is granted on top of it.
const SLACK: Duration = Duration::from_secs(1);

/// What a hand-over may cost a client, on a busy machine.
const HANDOVER: Duration = Duration::from_millis(300);

const WELL: Answer = Answer::Status("200 OK");
const ILL: Answer = Answer::Status("500 Internal Server Error");

#[test]
fn a_service_that_closes_hands_its_shared_ips_over_within_its_checks_and_nobody_notices()
-> Result<()> {
    scenario("service closed", Setup::default(), |bed| {
        let mut services = all_well(bed)?;
        let (owner, probe) = up(bed, &checked("tcp: 127.0.0.1:7070"))?;
        let watch = Watch::begin(&bed.cluster, (owner + 1) % bed.nodes.len())?;
        let mark = probe.mark()?;
        let closed = Instant::now();
        services[owner].close();
        let old = format!("\"node\":\"{}\"", bed.nodes[owner].name());
        let moved = watch.next_like("another owner", SETTLED_WITHIN, |change| {
            let is_owner = change.key == format!("/vip-agent/owners/{VIP}");
            is_owner
                && change
                    .value
                    .as_ref()
                    .is_some_and(|value| !value.contains(&old))
        })?;
        let after = moved.at.duration_since(closed);
        say::line(&format!(
            "measured: moved {} after its service closed, checked every {} (target {})",
            say::told(after),
            say::told(INTERVAL),
            say::told(MOVED)
        ));
        ensure!(after <= MOVED + SLACK, "late: {after:?}");
        ensure!(
            after > INTERVAL * (FALL - 1),
            "one failure was enough: {after:?}"
        );
        for vip in BOTH {
            bed.next_owner(vip, owner, SETTLED_WITHIN)?;
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        by_handover("a service closed", &probe, mark)?;
        let log = bed.agent_log(owner)?;
        ensure!(
            log.matches("health check fails").count() == 1 && log.contains("Connection refused"),
            "not said once: {log}"
        );
        // When it is well again nothing goes back.
        services[owner] = Service::start(&bed.nodes[owner], |_| WELL)?;
        until_said(bed, owner, "health check passes")?;
        let before = epochs(bed, owner)?;
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        ensure!(epochs(bed, owner)? == before, "it changed hands again");
        Ok(())
    })
}

#[test]
fn a_service_that_flaps_bounces_nothing() -> Result<()> {
    scenario("service flaps", Setup::default(), |bed| {
        let pattern = |asked| if asked % 3 == 0 { WELL } else { ILL };
        let services = each(bed, |_| pattern)?;
        let config = checked("http: 'http://127.0.0.1:7070/healthz'");
        let (owner, probe) = up(bed, &config)?;
        let before = epochs(bed, owner)?;
        let mark = probe.mark()?;
        let asked = services[owner].asked();
        wait::until_true("the service to be asked", SETTLED_WITHIN, || {
            Ok(services[owner].asked() >= asked + 12)
        })?;
        unnoticed("a flapping service", &probe, mark)?;
        ensure!(epochs(bed, owner)? == before, "it changed hands");
        let log = bed.agent_log(owner)?;
        ensure!(!log.contains("health check fails"), "{log}");
        Ok(())
    })
}

#[test]
fn where_nobody_is_fit_the_owner_keeps_what_it_has() -> Result<()> {
    scenario("all unfit: keep", Setup::default(), |bed| {
        let mut services = all_well(bed)?;
        let (owner, probe) = up(bed, &checked("tcp: 127.0.0.1:7070"))?;
        let before = epochs(bed, owner)?;
        let mark = probe.mark()?;
        close_all(bed, &mut services, owner)?;
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        unnoticed("all services closed, keep", &probe, mark)?;
        ensure!(epochs(bed, owner)? == before, "it changed hands");
        let text = bed.status_text(owner)?;
        for part in [
            "check      tcp 127.0.0.1:7070: fails since",
            "Connection refused",
            "  unfit    tcp 127.0.0.1:7070 fails",
        ] {
            ensure!(text.contains(part), "not told: {part}: {text}");
        }
        let mark = probe.mark()?;
        let next = (owner + 1) % bed.nodes.len();
        services[next] = Service::start(&bed.nodes[next], |_| WELL)?;
        for vip in BOTH {
            let owns = bed.next_owner(vip, owner, SETTLED_WITHIN)?;
            ensure!(owns == next, "{vip} went to {owns}, which is not fit");
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        by_handover("one is fit again", &probe, mark)
    })
}

#[test]
fn where_nobody_is_fit_the_owner_gives_it_up_if_told_so_and_the_first_that_is_claims_it()
-> Result<()> {
    scenario("all unfit: release", Setup::default(), |bed| {
        let mut services = all_well(bed)?;
        let config = checked("tcp: 127.0.0.1:7070").with("when-all-unfit: release");
        let (owner, probe) = up(bed, &config)?;
        let mark = probe.mark()?;
        close_all(bed, &mut services, owner)?;
        for vip in BOTH {
            let key = format!("/vip-agent/owners/{vip}");
            wait::until_true("the key to be given up", SETTLED_WITHIN, || {
                let keys = bed.cluster.keys("/vip-agent/owners")?;
                Ok(keys.iter().all(|(name, _)| *name != key))
            })?;
            wait::until_true("the address to go", SETTLED_WITHIN, || {
                Ok(!bed.nodes[owner].has_address(vip)?)
            })?;
        }
        let next = (owner + 1) % bed.nodes.len();
        services[next] = Service::start(&bed.nodes[next], |_| WELL)?;
        let all: Vec<usize> = (0..bed.nodes.len()).collect();
        for vip in BOTH {
            let owns = bed.settled(vip, &all, SETTLED_WITHIN)?;
            ensure!(owns == next, "{vip} went to {owns}, which is not fit");
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.since(mark)?)
    })
}

#[test]
fn checks_that_never_end_are_told_and_delay_no_renewal() -> Result<()> {
    scenario("checks that hang", Setup::default(), |bed| {
        let hang = Arc::new(AtomicBool::new(false));
        let services = each(bed, |_| {
            let hang = Arc::clone(&hang);
            move |_| match hang.load(Ordering::SeqCst) {
                true => Answer::None,
                false => WELL,
            }
        })?;
        let mut config = checked("http: 'http://127.0.0.1:7070/livez'");
        let hangs = "health: [{ exec: [/bin/sleep, 60], interval: 500ms }]";
        // The one that nothing of is ever heard of is on a shared IP of its own.
        config = config.saying(&[BOTH[1]], hangs).with_vips(&BOTH);
        for index in 0..bed.nodes.len() {
            bed.start_agent(index, &config)?;
        }
        let all: Vec<usize> = (0..bed.nodes.len()).collect();
        bed.settled(VIP, &all, SETTLED_WITHIN)?;
        let probe = bed.probe(&[VIP])?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        hang.store(true, Ordering::SeqCst);
        for index in &all {
            until_said(bed, *index, "no answer within 300ms")?;
        }
        // Until all know that of all it may have been handed over.
        probe.steady(STEADY, SETTLED_WITHIN)?;
        let owner = bed.settled(VIP, &all, SETTLED_WITHIN)?;
        let before = bed.status(owner)?.vip(VIP)?.epoch();
        let mark = probe.mark()?;
        // Of a TTL of 2 s the gates have 1.67 s left after each renewal, and 1.33 s right before it.
        let mut least = u64::MAX;
        let asked = services[owner].asked();
        wait::until_true("twice the TTL of checks", SETTLED_WITHIN, || {
            let left = bed.status(owner)?.0["lease"]["remaining_ms"].as_u64();
            least = least.min(left.context("no lease")?);
            Ok(services[owner].asked() >= asked + 14)
        })?;
        say::line(&format!(
            "measured: with checks that hang the gates had {least} ms left at the least (1333 ms right before a renewal)"
        ));
        ensure!(least > 0, "renewals came too late: a gate was shut");
        unnoticed("checks that hang", &probe, mark)?;
        let now = bed.status(owner)?.vip(VIP)?.epoch();
        ensure!(now == before, "it changed hands");
        ensure!(bed.owner_of(BOTH[1])?.is_none(), "nobody is fit for that");
        let text = bed.status_text(owner)?;
        for part in [
            "http http://127.0.0.1:7070/livez: no answer within 300ms",
            "exec /bin/sleep 60: no end within 500ms",
        ] {
            ensure!(text.contains(part), "not told: {part}: {text}");
        }
        Ok(())
    })
}

#[test]
fn a_restart_goes_on_before_its_checks_were_run() -> Result<()> {
    scenario("restart with checks", Setup::default(), |bed| {
        let config = AgentConfig {
            ttl: "3s".to_owned(),
            ..checked("exec: [/bin/sleep, 1], interval: 2s, timeout: 2s")
        };
        let (owner, probe) = up(bed, &config)?;
        let before = epochs(bed, owner)?;
        let mark = probe.mark()?;
        let status = bed.hold_agent(owner)?;
        ensure!(status.success(), "the held agent ended with {status}");
        bed.start_agent(owner, &config)?;
        wait::until_true("the check to be run anew", SETTLED_WITHIN, || {
            Ok(bed.agent_log(owner)?.matches("health check passes").count() == 2)
        })?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        unnoticed("restart with a slow check", &probe, mark)?;
        // The owner's key gets no new revision, or one from the same owner.
        for vip in BOTH {
            ensure!(bed.owner_of(vip)? == Some(owner), "{vip} changed hands");
        }
        ensure!(epochs(bed, owner)? == before, "it was given up between");
        Ok(())
    })
}

#[test]
fn checks_come_and_go_with_a_new_configuration() -> Result<()> {
    scenario("checks reloaded", Setup::default(), |bed| {
        let plain = AgentConfig::of_both_families();
        let (owner, probe) = up(bed, &plain)?;
        let before = epochs(bed, owner)?;
        let mark = probe.mark()?;
        let service = Service::start(&bed.nodes[owner], |_| WELL)?;
        let passing = checked("tcp: 127.0.0.1:7070");
        reload(bed, owner, &passing)?;
        until_said(bed, owner, "health check passes")?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        unnoticed("a check that passes comes", &probe, mark)?;
        ensure!(epochs(bed, owner)? == before, "it changed hands");
        let failing = checked("tcp: 127.0.0.1:7071");
        let mark = probe.mark()?;
        reload(bed, owner, &failing)?;
        for vip in BOTH {
            bed.next_owner(vip, owner, SETTLED_WITHIN)?;
        }
        probe.steady(STEADY, SETTLED_WITHIN)?;
        by_handover("a check that fails comes", &probe, mark)?;
        let asked = service.asked();
        probe.steady(2 * STEADY, SETTLED_WITHIN)?;
        ensure!(service.asked() == asked, "the old check goes on");
        ensure!(bed.status_text(owner)?.contains("tcp 127.0.0.1:7071 fails"));
        reload(bed, owner, &plain)?;
        wait::until_true("it to be fit again", SETTLED_WITHIN, || {
            let text = bed.status_text(owner)?;
            Ok(!text.contains("tcp 127.0.0.1") && !text.contains("unfit"))
        })
    })
}

#[test]
fn a_link_that_loses_its_own_address_hands_over_at_once() -> Result<()> {
    let setup = Setup {
        mgmt: true,
        ..Setup::default()
    };
    scenario("own address lost", setup, |bed| {
        let owner = agents_up(bed, &AgentConfig::new(VIP))?;
        let probe = bed.probe(&[VIP])?;
        let own = format!("10.77.0.{}/24", owner + 1);
        let failover = fail_over(bed, &probe, owner, |bed| {
            let node = bed.nodes[owner].netns();
            node.ip(&["address", "delete", &own, "dev", "eth0"])
                .map(drop)
        })?;
        let outage = failover.report.longest_outage();
        say::line(&format!(
            "measured: own address lost: outage {} (target 100 ms)",
            say::told(outage)
        ));
        ensure!(outage <= Duration::from_millis(100) + SLACK, "{outage:?}");
        let text = bed.status_text(owner)?;
        let why = "interface eth0: it has no IPv4 address of its own";
        ensure!(text.contains(why), "{text}");
        never_two(&failover.report)
    })
}

/// Both shared IPs, with this check on their interface.
fn checked(check: &str) -> AgentConfig {
    let mut config = AgentConfig::of_both_families();
    let interval = if check.contains("interval") {
        String::new()
    } else {
        format!(", interval: {}ms", INTERVAL.as_millis())
    };
    let line = format!("health: [{{ {check}{interval}, fall: {FALL} }}]");
    config.of_interface.push(line);
    config
}

/// Checks that the client noticed no more than hand-overs since a mark.
fn by_handover(what: &str, probe: &Probe, mark: Mark) -> Result<()> {
    let report = probe.decided_since(mark)?;
    say::line(&format!(
        "measured: {what}: longest outage {} (target 30 ms), rounds by two {}",
        report.told(|noticed| say::told(noticed.longest_outage())),
        report.by_two()
    ));
    never_two(&report)?;
    ensure!(report.longest_outage() <= HANDOVER, "{what}: {report:#?}");
    Ok(())
}

fn reload(bed: &mut Bed, index: usize, config: &AgentConfig) -> Result<()> {
    config.write(&bed.nodes[index], &bed.cluster)?;
    bed.agent(index)?.signal(Signal::SIGHUP)
}

fn until_said(bed: &Bed, index: usize, text: &str) -> Result<()> {
    wait::until_true(&format!("the log to say {text}"), SETTLED_WITHIN, || {
        Ok(bed.agent_log(index)?.contains(text))
    })
}

/// The followers' first, then the owner's, each when the one before is known to all.
fn close_all(bed: &Bed, services: &mut [Service], owner: usize) -> Result<()> {
    let count = services.len();
    for index in (1..=count).map(|step| (owner + step) % count) {
        services[index].close();
        until_said(bed, index, "health check fails")?;
        let unfit = format!("/vip-agent/members/{}", bed.nodes[index].name());
        wait::until_true("its record to say so", SETTLED_WITHIN, || {
            let keys = bed.cluster.keys(&unfit)?;
            Ok(keys
                .iter()
                .any(|(_, value)| value.contains("tcp 127.0.0.1:7070 fails")))
        })?;
    }
    Ok(())
}

fn all_well(bed: &Bed) -> Result<Vec<Service>> {
    each(bed, |_| |_| WELL)
}

/// A service on each node.
fn each<A: FnMut(usize) -> Answer + Send + 'static>(
    bed: &Bed,
    answer: impl Fn(usize) -> A,
) -> Result<Vec<Service>> {
    let nodes = bed.nodes.iter().enumerate();
    nodes
        .map(|(index, node)| Service::start(node, answer(index)))
        .collect()
}

#[derive(Clone, Copy)]
enum Answer {
    Status(&'static str),
    /// The connection is kept, in silence.
    None,
}

/// What is checked: it listens on a node's loopback, and answers requests.
struct Service {
    closed: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// `answer`: what the request of this number, from 0, is answered.
    fn start(
        node: &Node,
        mut answer: impl FnMut(usize) -> Answer + Send + 'static,
    ) -> Result<Service> {
        let listener = node.netns().within(|| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).context("binding the service's port")
        })?;
        listener.set_nonblocking(true)?;
        let closed = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let (is_closed, count) = (Arc::clone(&closed), Arc::clone(&asked));
        let serve = move || {
            let mut kept = Vec::new();
            while !is_closed.load(Ordering::SeqCst) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                // Who only connects hangs up; who asks does it at once.
                let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                match answer(count.fetch_add(1, Ordering::SeqCst)) {
                    Answer::Status(status) => {
                        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    }
                    Answer::None => kept.push(stream),
                }
            }
        };
        Ok(Service {
            closed,
            asked,
            thread: Some(thread::spawn(serve)),
        })
    }

    /// Returns when nobody listens any more.
    fn close(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there fails what awaits its answers.
            let _ = thread.join();
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.close();
    }
}
