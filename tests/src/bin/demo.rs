//! `cargo xtask demo`: three nodes, etcd and a client on this machine, and the owner of a shared IP going away in four ways, told as it happens.

use std::collections::BTreeSet;
use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, VIP6};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, calm, fail_over, up};
use vip_tests::probe::{Probe, Report};
use vip_tests::say::told;
use vip_tests::{agent, command, gate, interrupt, privilege, run};

const USAGE: &str = "\
usage: demo [--keep | --down]
  --keep   leave everything standing at the end, and print how to look around
  --down   clear away what an earlier --keep left standing";
const EVERY_SECOND: Duration = Duration::from_secs(1);
/// How often the live view looks at the client.
const GLANCE: Duration = Duration::from_millis(50);
const ALL: [usize; 3] = [0, 1, 2];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => play(false),
        ["--keep"] => play(true),
        ["--down"] => clear_away(),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("demo: cannot make sense of {arguments:?}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::requested() => {
            eprintln!("demo: interrupted; everything is cleared away");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn clear_away() -> Result<()> {
    interrupt::listen()?;
    let names = run::take_down_kept()?;
    println!(
        "{}",
        if names.is_empty() {
            "nothing was standing".to_owned()
        } else {
            format!("cleared away: {}", names.join(", "))
        }
    );
    Ok(())
}

fn play(keep: bool) -> Result<()> {
    if let Some(why) = privilege::lacking() {
        bail!("{why}");
    }
    let program = agent::binary()?;
    interrupt::listen()?;
    let story = Story {
        began: Instant::now(),
    };
    story.tell(&format!(
        "three nodes on one switch, an etcd member on each, a client; {}",
        program.display()
    ));
    let mut bed = Bed::raise(Setup::default())?;
    story.tell(&format!(
        "etcd: three members, {} leads",
        bed.nodes[bed.cluster.leader()?].name()
    ));
    match acts(&story, &mut bed) {
        Ok(scenes) => {
            table(&scenes);
            if keep {
                look_around(bed)
            } else {
                bed.take_down()
            }
        }
        Err(error) => {
            if !interrupt::requested() {
                eprintln!("{}", bed.log_tails());
            }
            bed.take_down()?;
            Err(error)
        }
    }
}

/// What stands in the table at the end.
struct Scene {
    what: &'static str,
    owners: String,
    outages: Report,
    target: &'static str,
    report: Report,
}

fn acts(story: &Story, bed: &mut Bed) -> Result<Vec<Scene>> {
    // One service with two addresses: they go together.
    let config = AgentConfig::of_both_families().saying(&BOTH, "group: service");
    story.heading("first claim");
    story.tell("agents start on n1, then on n2 and n3 (lease.ttl 2s)");
    let (owner, probe) = up(bed, &config)?;
    for vip in BOTH {
        let epoch = bed.status(owner)?.vip(vip)?.epoch();
        story.tell(&format!(
            "{} owns {vip} (epoch {epoch}), the others follow",
            bed.nodes[owner].name()
        ));
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let view = scope.spawn(|| live_view(story, &probe, &over));
        let scenes = faults(story, bed, &probe, &config);
        over.store(true, Ordering::SeqCst);
        // A panic of the view is no reason to lose the scenes.
        let _ = view.join();
        scenes
    })
}

fn faults(story: &Story, bed: &mut Bed, probe: &Probe, config: &AgentConfig) -> Result<Vec<Scene>> {
    probe.steady(2 * STEADY, SETTLED_WITHIN)?;

    let handover = Act {
        what: "handover",
        target: "50 ms",
        breaks: "is asked to stop (SIGTERM)",
        mends: "is started again",
    };
    let kill = Act {
        what: "kill -9",
        target: "1.5 s",
        breaks: "is killed; its gate in the kernel serves on until its deadline",
        mends: "is started again",
    };
    let freeze = Act {
        what: "freeze",
        target: "1.5 s",
        breaks: "is frozen (SIGSTOP); its gate in the kernel serves on until its deadline",
        mends: "is thawed (SIGCONT)",
    };
    let power_cut = Act {
        what: "power cut",
        target: "2.8 s",
        breaks: "loses its power: link, agent and etcd member at once",
        mends: "boots again",
    };
    let start = |bed: &mut Bed, owner| bed.start_agent(owner, config);
    let boot = |bed: &mut Bed, owner| bed.restore_power(owner, config);
    Ok(vec![
        handover.play(
            story,
            bed,
            probe,
            |bed, owner| bed.stop_agent(owner).map(drop),
            start,
        )?,
        kill.play(story, bed, probe, Bed::kill_agent, start)?,
        freeze.play(story, bed, probe, Bed::freeze_agent, Bed::thaw_agent)?,
        power_cut.play(story, bed, probe, Bed::cut_power, boot)?,
    ])
}

/// One fault and its mending, as told.
struct Act {
    what: &'static str,
    target: &'static str,
    breaks: &'static str,
    mends: &'static str,
}

impl Act {
    fn play(
        self,
        story: &Story,
        bed: &mut Bed,
        probe: &Probe,
        fault: impl FnOnce(&mut Bed, usize) -> Result<()>,
        mend: impl FnOnce(&mut Bed, usize) -> Result<()>,
    ) -> Result<Scene> {
        story.heading(self.what);
        let old = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        // The plain case: etcd's leader is elsewhere. When it dies with the owner, etcd's own election comes on top.
        bed.cluster.lead_elsewhere(old)?;
        let old_name = bed.nodes[old].name().to_owned();
        let failover = fail_over(bed, probe, old, |bed| {
            story.tell(&format!("{old_name} {}", self.breaks));
            fault(bed, old)
        })?;
        let new_name = bed.nodes[failover.new].name().to_owned();
        let outages = failover.report.clone();
        story.tell(&format!(
            "{new_name} owns {VIP}; the client waited: {}",
            outages.told(|noticed| told(noticed.longest_outage()))
        ));
        story.tell(&format!("{old_name} {}", self.mends));
        mend(bed, old)?;
        let report = calm(bed, probe, &failover)?;
        story.tell(&format!(
            "{old_name} follows {new_name}; rounds answered by two: {}",
            report.by_two()
        ));
        Ok(Scene {
            what: self.what,
            owners: format!("{old_name} → {new_name}"),
            outages,
            target: self.target,
            report,
        })
    }
}

/// Tells what the client sees: a line whenever another node answers or nobody does, and one every second.
fn live_view(story: &Story, probe: &Probe, over: &AtomicBool) -> Result<()> {
    let mut last = String::new();
    let mut second = (Instant::now(), probe.mark()?);
    let mut mark = probe.mark()?;
    while !over.load(Ordering::SeqCst) {
        thread::sleep(GLANCE);
        let next = probe.mark()?;
        let glance = probe.since(mark)?;
        mark = next;
        let who = answering(&glance);
        if who != last {
            story.tell(&format!("  client: {who}"));
            last = who;
            second = (Instant::now(), next);
        } else if second.0.elapsed() >= EVERY_SECOND {
            let report = probe.since(second.1)?;
            let asked = report.rounds - report.in_flight();
            story.tell(&format!(
                "  client: {asked} requests, {} answered; {last}",
                report.answered()
            ));
            second = (Instant::now(), next);
        }
    }
    Ok(())
}

fn answering(glance: &Report) -> String {
    let names: Vec<&str> = glance
        .noticed
        .iter()
        .flat_map(|noticed| &noticed.answers)
        .filter(|answers| answers.ordinary > 0)
        .map(|answers| answers.node.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    match names[..] {
        [] => "no answers".to_owned(),
        [one] => format!("{one} answers"),
        _ => format!("{} answer, one after the other", names.join(" and ")),
    }
}

fn table(scenes: &[Scene]) {
    println!();
    println!(
        "{:<10}  {:<8}  {:>11}  {:>11}  {:>8}  {:>8}  {:>15}",
        "case", "owner", "IPv4 outage", "IPv6 outage", "target", "rounds", "answered by two"
    );
    println!(
        "{:-<10}  {:-<8}  {:->11}  {:->11}  {:->8}  {:->8}  {:->15}",
        "", "", "", "", "", "", ""
    );
    for scene in scenes {
        let outage = |vip| {
            let noticed = scene.outages.of_vip(vip);
            noticed.map_or_else(|_| String::new(), |noticed| told(noticed.longest_outage()))
        };
        println!(
            "{:<10}  {:<8}  {:>11}  {:>11}  {:>8}  {:>8}  {:>15}",
            scene.what,
            scene.owners,
            outage(VIP),
            outage(VIP6),
            scene.target,
            scene.report.rounds,
            scene.report.by_two()
        );
    }
    println!();
    println!(
        "outage: from the first request without an answer to the next answer; the client asks every 2 ms."
    );
    println!(
        "answered by two: rounds in which more than one node answered a look-up (broadcast ARP request, multicast Neighbour Solicitation) or an echo request to each node's MAC."
    );
}

fn look_around(bed: Bed) -> Result<()> {
    let owner = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
    let node = &bed.nodes[owner];
    let (program, gates) = (agent::binary()?, gate::pin_of(node, "GATES")?);
    println!();
    println!("left standing; look around:");
    if command::run("ping", &["-V"]).is_ok() {
        for vip in BOTH {
            println!("  ip netns exec {} ping {vip}", bed.client.name());
        }
    }
    println!(
        "  ip netns exec {} ip -d address show eth0",
        node.netns().name()
    );
    println!(
        "  ip netns exec {} env ETCDCTL_API=3 etcdctl get --prefix /vip-agent",
        node.netns().name()
    );
    for node in &bed.nodes {
        println!(
            "  {} status --state-dir {}",
            program.display(),
            node.state_dir().display()
        );
    }
    println!("  bpftool map dump pinned {}", gates.display());
    println!("  tail -f {}/n*/agent.log", bed.directory().display());
    println!("clear it away with: cargo xtask demo --down");
    bed.leave()
}

/// The clock that the timeline goes by.
struct Story {
    began: Instant,
}

impl Story {
    fn tell(&self, text: &str) {
        println!("{:>7.2} s  {text}", self.began.elapsed().as_secs_f64());
    }

    fn heading(&self, text: &str) {
        println!(
            "\n{:>7.2} s  ── {text} ──",
            self.began.elapsed().as_secs_f64()
        );
    }
}
