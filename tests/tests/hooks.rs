//! Hooks: real agents run real programs, which write down what they were told.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, agents_up, fail_over, never_two, up};
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
/// What hooks may take to be run on a busy machine.
const SOON: Duration = Duration::from_secs(10);
/// Less than a lease has left at least, so that a hand-over which only the end of the lease brought about is over it.
const ON_TIME: Duration = Duration::from_millis(1050);
/// How long an agent's end waits for hooks.
const END: Duration = Duration::from_secs(5);

#[test]
fn hooks_run_on_take_over_and_on_loss_and_say_who_where_and_why() -> Result<()> {
    scenario("hooks", Setup::default(), |bed| {
        let config = writing(bed)?;
        let old = agents_up(bed, &config)?;
        for vip in BOTH {
            let told = hook(bed, old, vip, "become-owner")?;
            ensure!(told.argument == "--owner", "{told:?}");
            ensure!(told.says("node") == bed.nodes[old].name(), "{told:?}");
            ensure!(told.says("owner") == bed.nodes[old].name(), "{told:?}");
            ensure!(told.says("role") == "owner", "{told:?}");
            ensure!(told.says("interface") == "eth0", "{told:?}");
            ensure!(
                told.epoch() == bed.status(old)?.vip(vip)?.epoch(),
                "{told:?}"
            );
            // No map, socket or lock of the agent's.
            for ours in ["anon_inode", "socket:", "lock", "bpf"] {
                ensure!(!told.files.contains(ours), "{told:?}");
            }
        }
        // Who never owned it lost nothing.
        for index in ALL {
            let events = told_on(bed, index)?;
            let expected = if index == old { 2 } else { 0 };
            ensure!(events.len() == expected, "{events:?}");
        }

        let before = bed.status(old)?.vip(BOTH[0])?.epoch();
        let stopped = bed.stop_agent(old)?;
        ensure!(stopped.success(), "{stopped}");
        // Without waiting: an agent's end does that.
        for vip in BOTH {
            let told = told_on(bed, old)?;
            let lost = told.iter().filter(|told| told.is(vip, "become-follower"));
            ensure!(lost.count() == 1, "{told:?}");
        }
        let new = bed.next_owner(BOTH[0], old, SETTLED_WITHIN)?;
        let told = hook(bed, new, BOTH[0], "become-owner")?;
        ensure!(told.epoch() > before, "{told:?}");
        Ok(())
    })
}

#[test]
fn an_agent_tells_hooks_what_the_one_before_did_not_live_to_tell() -> Result<()> {
    scenario("hooks after a crash", Setup::default(), |bed| {
        let config = writing(bed)?;
        let old = agents_up(bed, &config)?;
        let count = |bed: &Bed, vip, event| -> Result<usize> {
            let told = told_on(bed, old)?;
            Ok(told.iter().filter(|told| told.is(vip, event)).count())
        };
        // Held and gone on with: told again, and nothing of a loss.
        for vip in BOTH {
            hook(bed, old, vip, "become-owner")?;
        }
        let held = bed.hold_agent(old)?;
        ensure!(held.success(), "{held}");
        bed.start_agent(old, &config)?;
        for vip in BOTH {
            wait::until_true("the second become-owner", SOON, || {
                Ok(count(bed, vip, "become-owner")? == 2)
            })?;
            ensure!(count(bed, vip, "become-follower")? == 0);
        }
        // Killed, and another's when it is back.
        bed.kill_agent(old)?;
        bed.next_owner(BOTH[0], old, SETTLED_WITHIN)?;
        bed.next_owner(BOTH[1], old, SETTLED_WITHIN)?;
        bed.start_agent(old, &config)?;
        for vip in BOTH {
            let told = hook(bed, old, vip, "become-follower")?;
            ensure!(told.says("role") == "follower", "{told:?}");
            ensure!(told.says("owner") != bed.nodes[old].name(), "{told:?}");
            ensure!(count(bed, vip, "become-owner")? == 2);
        }
        Ok(())
    })
}

#[test]
fn hooks_that_are_new_are_told_of_what_is_removed() -> Result<()> {
    let setup = Setup {
        nodes: 1,
        ..Setup::default()
    };
    scenario("hooks by reload", setup, |bed| {
        agents_up(bed, &AgentConfig::of_both_families())?;
        let hooked = writing(bed)?;
        hooked.write(&bed.nodes[0], &bed.cluster)?;
        let said = bed.type_at(0, &["reload"])?.good()?;
        ensure!(said == "taken up: changed what is said of all\n", "{said}");
        let fewer = hooked.with_vips(&BOTH[..1]);
        fewer.write(&bed.nodes[0], &bed.cluster)?;
        bed.type_at(0, &["reload"])?.good()?;
        let told = hook(bed, 0, BOTH[1], "become-follower")?;
        ensure!(told.says("interface") == "eth0", "{told:?}");
        let all = told_on(bed, 0)?;
        ensure!(all.len() == 1, "{all:?}");
        Ok(())
    })
}

#[test]
fn a_hook_that_hangs_is_killed_and_holds_up_no_failover() -> Result<()> {
    scenario("hooks that hang", Setup::default(), |bed| {
        let pids = bed.directory().join("pids");
        let script = format!("echo $$ >> {}; sleep 600 & wait", pids.display());
        let config = AgentConfig::of_both_families().with(&format!(
            "hooks: {{ become-owner: [/bin/sh, -c, '{script}'], become-follower: [/bin/sh, -c, '{script}'], timeout: 2s }}"
        ));
        let (old, probe) = up(bed, &config)?;
        wait::until_true("the hung hooks to be killed and counted", SOON, || {
            Ok(counted(bed, old, "become-owner")? == [2, 0, 2])
        })?;
        let text = bed.status_text(old)?;
        let line = "hook       become-owner: 2 ran, 2 timed out (last failure: ";
        ensure!(
            text.contains(line) && text.contains("killed at its limit of 2s"),
            "{text}"
        );
        nobody_of(&pids)?;
        // The hooks of its loss hang too, and the next owner's.
        let mut took = Duration::ZERO;
        let failover = fail_over(bed, &probe, old, |bed| {
            let begun = Instant::now();
            let stopped = bed.stop_agent(old)?;
            took = begun.elapsed();
            ensure!(stopped.success(), "{stopped}");
            Ok(())
        })?;
        let outage = failover.report.longest_outage();
        say::line(&format!(
            "measured: hand-over with hooks that hang: outage {}, the old agent's end {}",
            say::told(outage),
            say::told(took)
        ));
        ensure!(outage < ON_TIME, "{:#?}", failover.report);
        ensure!(
            took > Duration::from_secs(2) && took < END,
            "ended after {took:?}"
        );
        // They may go to different nodes.
        for (vip, index) in &failover.owners {
            let owned = failover.owners.iter().filter(|(_, one)| one == index);
            let count = u64::try_from(owned.count())?;
            let what = format!("the hook of {vip}'s next owner to be killed too");
            wait::until_true(&what, SOON, || {
                Ok(counted(bed, *index, "become-owner")? == [count, 0, count])
            })?;
        }
        nobody_of(&pids)?;
        probe.steady(STEADY, SETTLED_WITHIN)?;
        never_two(&probe.finish()?)
    })
}

#[test]
fn an_agents_end_waits_for_hooks_no_longer_than_five_seconds() -> Result<()> {
    let setup = Setup {
        nodes: 1,
        ..Setup::default()
    };
    scenario("an end with hooks that hang", setup, |bed| {
        let pids = bed.directory().join("pids");
        let script = format!("echo $$ >> {}; sleep 600 & wait", pids.display());
        let config = AgentConfig::of_both_families().with(&format!(
            "hooks: {{ become-follower: [/bin/sh, -c, '{script}'], timeout: 1min }}"
        ));
        agents_up(bed, &config)?;
        let begun = Instant::now();
        let stopped = bed.stop_agent(0)?;
        let took = begun.elapsed();
        ensure!(stopped.success(), "{stopped}");
        ensure!(took > END && took < 2 * END, "ended after {took:?}");
        ensure!(fs::read_to_string(&pids)?.lines().count() == 2);
        nobody_of(&pids)?;
        let log = bed.agent_log(0)?;
        ensure!(log.contains("hooks killed: the agent ends"), "{log}");
        ensure!(bed.nodes[0].pins()?.is_empty());
        Ok(())
    })
}

#[test]
fn a_hook_that_fails_is_logged_and_counted_and_one_of_a_conflict_says_with_whom() -> Result<()> {
    scenario(
        "hooks that fail, and of conflicts",
        Setup::default(),
        |bed| {
            let log = bed.directory().join("hook.log");
            let hook_file = script(bed.directory(), &log)?;
            let hook_file = hook_file.display();
            let config = AgentConfig::of_both_families().with(&format!(
            "hooks: {{ become-owner: [/bin/sh, -c, 'echo >&2 no such server; exit 7'], conflict: [/bin/sh, {hook_file}, --conflict] }}"
        ));
            let owner = agents_up(bed, &config)?;
            wait::until_true("the failures to be counted", SOON, || {
                Ok(counted(bed, owner, "become-owner")? == [2, 2, 0])
            })?;
            let text = bed.status_text(owner)?;
            ensure!(text.contains("exit status 7: no such server"), "{text}");
            let lines = bed.agent_log(owner)?;
            let told = |line: &&str| line.contains("WARN") && line.contains("hook failed");
            ensure!(lines.lines().filter(told).count() == 2, "{lines}");

            let stranger = bed.stranger()?;
            for vip in BOTH {
                stranger.announce(vip)?;
                for index in ALL {
                    let told = hook(bed, index, vip, "conflict")?;
                    ensure!(told.says("mac") == stranger.mac().to_string(), "{told:?}");
                    ensure!(told.says("interface") == "eth0", "{told:?}");
                    let response = if index == owner {
                        "defended"
                    } else {
                        "dropped"
                    };
                    ensure!(told.says("response") == response, "{told:?}");
                    ensure!(told.says("owner") == bed.nodes[owner].name(), "{told:?}");
                }
            }
            Ok(())
        },
    )
}

/// What one run of the hook was given.
#[derive(Debug)]
struct Told {
    argument: String,
    environment: Vec<(String, String)>,
    files: String,
    json: Value,
}

impl Told {
    fn parse(line: &str) -> Result<Told> {
        let mut parts = line.splitn(4, '|');
        let mut next = || parts.next().map(str::to_owned).context("a whole line");
        let (argument, environment, files, json) = (next()?, next()?, next()?, next()?);
        let environment = environment
            .split(';')
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let told = Told {
            argument,
            environment,
            files,
            json: serde_json::from_str(&json)?,
        };
        // Whoever reads only one of both misses nothing.
        for (key, value) in told.json.as_object().context("an object")? {
            let name = format!("VIP_AGENT_{}", key.to_uppercase());
            let variable = told.environment.iter().find(|(one, _)| *one == name);
            let expected = match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let (_, text) = variable.with_context(|| format!("{name} in {told:?}"))?;
            ensure!(*text == expected, "{name} in {told:?}");
        }
        Ok(told)
    }

    fn is(&self, vip: IpAddr, event: &str) -> bool {
        self.says("vip") == vip.to_string() && self.says("event") == event
    }

    fn says(&self, key: &str) -> &str {
        self.json
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn epoch(&self) -> u64 {
        self.json
            .get("epoch")
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }
}

/// A configuration whose hooks write down what they were told.
fn writing(bed: &Bed) -> Result<AgentConfig> {
    let script = script(bed.directory(), &bed.directory().join("hook.log"))?;
    let script = script.display();
    Ok(AgentConfig::of_both_families().with(&format!(
        "hooks: {{ become-owner: [/bin/sh, {script}, --owner], become-follower: [/bin/sh, {script}, --follower] }}"
    )))
}

fn script(directory: &Path, log: &Path) -> Result<PathBuf> {
    let path = directory.join("hook.sh");
    let text = format!(
        "read -r json\nvariables=$(env | grep ^VIP_AGENT_ | sort | tr '\\n' ';')\nfiles=$(ls -l /proc/$$/fd | tr '\\n|' '  ')\n\
         printf '%s|%s|%s|%s\\n' \"$1\" \"$variables\" \"$files\" \"$json\" >> {}.$VIP_AGENT_NODE\n",
        log.display()
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Everything that the hooks of a node were told so far.
fn told_on(bed: &Bed, index: usize) -> Result<Vec<Told>> {
    let log = bed
        .directory()
        .join(format!("hook.log.{}", bed.nodes[index].name()));
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(Told::parse).collect()
}

/// Waits until a node's hook was told of an event; returns the first time that it was.
fn hook(bed: &Bed, index: usize, vip: IpAddr, event: &str) -> Result<Told> {
    let name = bed.nodes[index].name();
    wait::until(
        &format!("{name}'s hook to be told {event} of {vip}"),
        SOON,
        || {
            Ok(told_on(bed, index)?
                .into_iter()
                .find(|told| told.is(vip, event)))
        },
    )
}

/// How many hooks of an event ran, failed and timed out.
fn counted(bed: &Bed, index: usize, event: &str) -> Result<[u64; 3]> {
    let status = bed.status(index)?;
    let hooks = status.0.pointer("/hooks").and_then(Value::as_array);
    let hooks = hooks.context("hooks in the status")?;
    let hook = hooks.iter().find(|hook| hook["event"] == event);
    let hook = hook.with_context(|| format!("{event} in {hooks:?}"))?;
    Ok(["ran", "failed", "timed_out"].map(|count| hook[count].as_u64().unwrap_or(u64::MAX)))
}

/// Waits until none of these processes lives, nor any of its group.
fn nobody_of(pids: &Path) -> Result<()> {
    let pids = fs::read_to_string(pids)?;
    let groups: Vec<&str> = pids.lines().collect();
    ensure!(!groups.is_empty(), "no hook ran");
    wait::until_true("the hooks' end", SOON, || {
        for entry in fs::read_dir("/proc")? {
            // One that ends while it is looked at is gone.
            let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
            // Behind the name: state, parent, group.
            let rest = stat.rsplit_once(") ").map(|(_, rest)| rest);
            let mut fields = rest.unwrap_or_default().split(' ');
            let (state, group) = (fields.next(), fields.nth(1));
            if state != Some("Z") && group.is_some_and(|group| groups.contains(&group)) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}
