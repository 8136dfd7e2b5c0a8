//! What the agent says to who asks it for something, and to who asks for the impossible.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vip_tests::agent::AgentConfig;
use vip_tests::bed::{BOTH, Bed, Setup, VIP, VIP6, scenario};
use vip_tests::failover::{SETTLED_WITHIN, STEADY, unnoticed};
use vip_tests::{say, wait};

const ALL: [usize; 3] = [0, 1, 2];
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 101));

#[test]
fn what_is_asked_for_is_done_or_said_why_not_and_who_hangs_holds_up_nobody() -> Result<()> {
    scenario("control", Setup::default(), |bed| {
        let mut config = AgentConfig::new(VIP)
            .with_vips(&[VIP, VIP6, OTHER])
            .saying(&BOTH, "group: web");
        // Beyond what a freeze lasts here.
        config.ttl = "6s".to_owned();
        bed.start_agent(0, &config)?;
        bed.all_owned(&config.vips, SETTLED_WITHIN)?;
        bed.start_agent(1, &config)?;
        let mut ailing = config.clone();
        ailing.of_interface.push(format!(
            "health: [{{ exec: [/usr/bin/test, \"!\", -e, {}], interval: 200ms, fall: 1, rise: 1 }}]",
            ill(bed).display()
        ));
        bed.start_agent(2, &ailing)?;
        for vip in &config.vips {
            bed.settled(*vip, &ALL, SETTLED_WITHIN)?;
        }
        refusals(bed)?;
        hangs(bed)?;
        transfers(bed)?;
        at_once(bed)?;
        unfit(bed)?;
        late(bed)?;
        two_for_the_same(bed)?;
        too_many(bed)?;
        overruled(bed)?;
        forced(bed)
    })
}

/// Whatever cannot be is refused by the owner and by others, with a kind for programs, and changes nothing.
fn refusals(bed: &mut Bed) -> Result<()> {
    let probe = bed.probe(&BOTH)?;
    probe.steady(STEADY, SETTLED_WITHIN)?;
    let mark = probe.mark()?;
    let before = revisions(bed)?;
    bed.type_at(1, &["drain", "--node", "n3"])?.good()?;
    member_is(bed, &[0, 1], "n3", "/drained", &Value::Bool(true))?;
    for (arguments, kind, words) in [
        (
            &["transfer", "10.77.0.99", "--to", "n2"][..],
            "unknown-vip",
            &["10.77.0.99", "10.77.0.100"][..],
        ),
        (
            &["transfer", "10.77.0.100", "--to", "n9"],
            "no-member",
            &["n9", "n1, n2, n3"],
        ),
        (
            &["transfer", "10.77.0.100", "--to", "n3"],
            "drained",
            &["n3 is drained since", "undrain --node n3"],
        ),
    ] {
        for at in [0, 1] {
            bed.type_at(at, arguments)?.refused(words)?;
            let answer = bed.type_at(at, &[arguments, &["--json"]].concat())?;
            ensure!(answer.code == Some(1), "{answer:?}");
            let document: Value = serde_json::from_str(&answer.out)?;
            ensure!(
                document.pointer("/error/kind") == Some(&Value::from(kind)),
                "{document}"
            );
        }
    }
    // What is so already is no failure, and says so.
    let said = bed.transfer(1, VIP, 0)?.good()?;
    ensure!(said.contains("already"), "{said}");
    let said = bed
        .type_at(0, &["drain", "--node", "n3", "--wait"])?
        .good()?;
    ensure!(
        said.contains("already") && said.contains("holds nothing"),
        "{said}"
    );
    let said = bed.type_at(2, &["drain", "--node", "n9"])?.good()?;
    ensure!(said.contains("no member now"), "{said}");
    member_is(bed, &ALL, "n9", "/state", &Value::from("absent"))?;
    let text = bed.type_at(0, &["members"])?.good()?;
    say::line(&format!("members:\n{text}"));
    for word in [
        "n9",
        "no member",
        "drained since",
        "web: 10.77.0.100",
        "n2 (100)",
    ] {
        ensure!(text.contains(word), "members lacks {word}: {text}");
    }
    for node in ["n3", "n9", "n9"] {
        bed.type_at(1, &["undrain", "--node", node])?.good()?;
    }
    member_is(bed, &ALL, "n3", "/drained", &Value::Bool(false))?;
    ensure!(revisions(bed)? == before, "owner keys were written");
    for wrong in [
        &["transfer", "10.77.0", "--to", "n2"][..],
        &["transfer", "10.77.0.100"],
        &["drain", "--node", "a/b"],
    ] {
        let answer = bed.type_at(0, wrong)?;
        ensure!(answer.code == Some(2), "{answer:?}");
    }
    unnoticed("what was refused", &probe, mark)?;
    probe.finish().map(drop)
}

/// Who says nothing, garbage, or too much, and who neither reads nor leaves.
fn hangs(bed: &Bed) -> Result<()> {
    let socket = bed.nodes[0].state_dir().join("agent.sock");
    let silent: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(&socket))
        .collect::<Result<_, _>>()?;
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&socket)?;
        stream.write_all(b"{\"drain\":{\"node\":\"n1\",\"wait_ms\":1}}garbage\n")?;
        waiting.push(stream);
    }
    let mut endless = UnixStream::connect(&socket)?;
    let _ = endless.write_all(&vec![b'x'; 200_000]);
    let mut answer = String::new();
    endless.set_read_timeout(Some(Duration::from_secs(10)))?;
    let _ = endless.read_to_string(&mut answer);
    ensure!(answer.contains("bad-request"), "{answer}");
    let mut old = UnixStream::connect(&socket)?;
    old.set_read_timeout(Some(Duration::from_secs(10)))?;
    old.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    old.read_to_string(&mut answer)?;
    let status: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
    ensure!(
        status.pointer("/node") == Some(&Value::from("n1")),
        "{status}"
    );
    ensure!(bed.status(0)?.state() == "joined", "the agent left");
    for mut stream in waiting {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("trailing"), "{answer}");
    }
    drop(silent);
    Ok(())
}

/// A group moves as one, asked for anywhere, and is there when the command ends.
fn transfers(bed: &Bed) -> Result<()> {
    for (at, to) in [(0, 1), (2, 0), (1, 2), (2, 0)] {
        let said = bed.transfer(at, VIP6, to)?.good()?;
        let owners = bed.cluster.owners()?;
        let name = bed.nodes[to].name();
        ensure!(
            BOTH.iter()
                .all(|vip| owners.get(vip).is_some_and(|owner| owner == name)),
            "`transfer` ended, and it is not there: {owners:?}, {said}"
        );
        ensure!(
            owners.get(&OTHER).is_some_and(|owner| owner == "n1"),
            "{owners:?}"
        );
        ensure!(
            said.contains("10.77.0.100") && said.contains(name),
            "{said}"
        );
    }
    Ok(())
}

/// Two who want it elsewhere: each is told what came of it, and one owner is left.
fn at_once(bed: &Bed) -> Result<()> {
    let vip = VIP.to_string();
    let ask = |at: usize, to: &str| -> Result<std::process::Child> {
        let mut command = bed.typed_at(at, &["transfer", &vip, "--to", to, "--timeout", "8s"])?;
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::piped());
        Ok(command.spawn()?)
    };
    for (one, other) in [(1, 2), (0, 0)] {
        let asked = [ask(one, "n2")?, ask(other, "n3")?];
        let mut came = Vec::new();
        for child in asked {
            let output = child.wait_with_output()?;
            came.push((
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        say::line(&format!(
            "two at once, at n{} and n{}: {came:?}",
            one + 1,
            other + 1
        ));
        ensure!(
            came.iter()
                .all(|(code, said)| *code == Some(0)
                    || *code == Some(1) && said.lines().count() == 1),
            "{came:?}"
        );
        ensure!(
            came.iter().any(|(code, _)| *code == Some(0)),
            "neither: {came:?}"
        );
        let owner = bed.settled(VIP, &ALL, SETTLED_WITHIN)?;
        ensure!(owner != 0, "it went nowhere");
        // Nobody waits for it any more, so it stays.
        wait::holds("it stays where it is", Duration::from_secs(2), || {
            Ok(bed.owner_of(VIP)? == Some(owner))
        })?;
        bed.transfer(one, VIP, 0)?.good()?;
    }
    Ok(())
}

/// A member that should not have it says why, and so does who is asked to hand it there.
fn unfit(bed: &Bed) -> Result<()> {
    let ill = ill(bed);
    std::fs::write(&ill, "")?;
    member_is(bed, &ALL, "n3", "/fit_for", &Value::from(0))?;
    let before = revisions(bed)?;
    for at in [0, 1] {
        let answer = bed.type_at(at, &["transfer", "10.77.0.100", "--to", "n3"])?;
        say::line(&format!("to an unfit node: {}", answer.text()));
        answer.refused(&["n3", "not fit for 10.77.0.100", "exec"])?;
    }
    ensure!(revisions(bed)? == before, "owner keys were written");
    std::fs::remove_file(&ill)?;
    member_is(bed, &ALL, "n3", "/fit_for", &Value::from(3))
}

/// Who does not do what was asked is named.
fn late(bed: &mut Bed) -> Result<()> {
    let ask = [
        "transfer",
        "10.77.0.100",
        "--to",
        "n3",
        "--timeout",
        "500ms",
    ];
    for (frozen, words) in [
        (0, "its owner n1 has not begun"),
        (2, "n3 was asked to get ready, and has not said that it is"),
    ] {
        bed.freeze_agent(frozen)?;
        let answer = bed.type_at(1, &ask)?;
        bed.thaw_agent(frozen)?;
        say::line(&format!("late: {}", answer.text()));
        answer.refused(&["10.77.0.100", words])?;
        // What had begun may have come to its end.
        bed.transfer(1, VIP, 0)?.good()?;
        wait::until_true("n1 to keep it", SETTLED_WITHIN, || {
            bed.transfer(1, VIP, 0)?.good()?;
            Ok(bed.owner_of(VIP)? == Some(0))
        })?;
    }
    Ok(())
}

/// Of two who want the same, one gives up: the other's ask stands, and is heeded.
fn two_for_the_same(bed: &mut Bed) -> Result<()> {
    bed.freeze_agent(0)?;
    let ask = |timeout| {
        [
            "transfer",
            "10.77.0.100",
            "--to",
            "n3",
            "--timeout",
            timeout,
        ]
    };
    let mut patient = bed.typed_at(1, &ask("20s"))?;
    let mut patient = patient.spawn()?;
    member_is(bed, &[1, 2], "n2", "/asks/10.77.0.100", &Value::from("n3"))?;
    bed.type_at(1, &ask("300ms"))?.refused(&["has not begun"])?;
    wait::holds("the other's ask stands", Duration::from_secs(1), || {
        let asked = member(bed, 2, "n2")?;
        Ok(asked.pointer("/asks/10.77.0.100") == Some(&Value::from("n3")))
    })?;
    bed.thaw_agent(0)?;
    ensure!(patient.wait()?.success(), "it was not handed over");
    ensure!(bed.owner_of(VIP)? == Some(2), "it is not there");
    bed.transfer(1, VIP, 0)?.good().map(drop)
}

/// Of so many who wait, some are turned away at once; and when the last has gone nothing is asked any more.
fn too_many(bed: &mut Bed) -> Result<()> {
    bed.freeze_agent(0)?;
    let socket = bed.nodes[1].state_dir().join("agent.sock");
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(
            b"{\"transfer\":{\"vip\":\"10.77.0.100\",\"to\":\"n3\",\"timeout_ms\":1500}}\n",
        )?;
        waiting.push(stream);
    }
    let mut answers = Vec::new();
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        answers.push(answer);
    }
    bed.thaw_agent(0)?;
    let of = |kind: &str| {
        let kind = format!("\"kind\":\"{kind}\"");
        answers.iter().filter(|text| text.contains(&kind)).count()
    };
    ensure!((of("busy"), of("timeout")) == (8, 32), "{answers:?}");
    wait::until_true("nothing to be asked for", SETTLED_WITHIN, || {
        let n2 = member(bed, 0, "n2")?;
        Ok(n2.pointer("/asks") == Some(&Value::Object(serde_json::Map::new())))
    })?;
    bed.transfer(1, VIP, 0)?.good().map(drop)
}

/// Who waits for a drain that somebody undoes is told so at once.
fn overruled(bed: &mut Bed) -> Result<()> {
    for index in [1, 2] {
        bed.freeze_agent(index)?;
    }
    let mut waiting = bed.typed_at(0, &["drain", "--wait"])?;
    waiting.stderr(std::process::Stdio::piped());
    let waiting = waiting.spawn()?;
    member_is(bed, &[0], "n1", "/drained", &Value::Bool(true))?;
    bed.undrain(0)?.good()?;
    let output = waiting.wait_with_output()?;
    for index in [1, 2] {
        bed.thaw_agent(index)?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    say::line(&format!("drain that was undone: {said}"));
    ensure!(
        output.status.code() == Some(1) && said.contains("n1 was undrained since"),
        "{output:?}"
    );
    for index in [1, 2] {
        bed.settled(VIP, &[0, index], SETTLED_WITHIN)?;
    }
    Ok(())
}

/// While this file is there, n3 is not well.
fn ill(bed: &Bed) -> std::path::PathBuf {
    bed.nodes[2].directory().join("ill")
}

/// Nobody else is there: it is said, and `--force` gives it up all the same.
fn forced(bed: &mut Bed) -> Result<()> {
    for index in [1, 2] {
        bed.stop_agent(index)?;
    }
    bed.all_owned(&[VIP, VIP6, OTHER], SETTLED_WITHIN)?;
    let before = revisions(bed)?;
    let answer = bed.type_at(0, &["drain"])?;
    say::line(&format!("drain of the last: {answer:?}"));
    answer.refused(&["no other member", "10.77.0.101", "--force"])?;
    ensure!(revisions(bed)? == before, "owner keys were written");
    let drained = bed.cluster.keys("/vip-agent/drained/")?;
    ensure!(drained.is_empty(), "{drained:?}");
    let answer = bed.type_at(0, &["drain", "--wait", "--force"])?;
    say::line(&format!("drain by force: {answer:?}"));
    let said = answer.good()?;
    ensure!(said.contains("it holds nothing"), "{said}");
    ensure!(bed.cluster.owners()?.is_empty(), "it holds something");
    let text = bed.type_at(0, &["members"])?.good()?;
    say::line(&format!("members:\n{text}"));
    bed.type_at(0, &["undrain"])?.good()?;
    bed.all_owned(&[VIP, VIP6, OTHER], SETTLED_WITHIN)?;
    bed.stop_agent(0)?;
    let answer = bed.type_at(0, &["status", "--json"])?;
    ensure!(answer.code == Some(1), "{answer:?}");
    let document: Value = serde_json::from_str(&answer.out)?;
    ensure!(
        document.pointer("/error/kind") == Some(&Value::from("no-agent")),
        "{document}"
    );
    Ok(())
}

fn revisions(bed: &Bed) -> Result<Vec<i64>> {
    let vips = bed.cluster.owners()?.into_keys();
    vips.map(|vip| bed.cluster.owner_revision(vip)).collect()
}

fn member(bed: &Bed, at: usize, name: &str) -> Result<Value> {
    let members = bed.members(at)?;
    let members = members.as_array().cloned().unwrap_or_default();
    let mut found = members
        .into_iter()
        .filter(|member| member.pointer("/node") == Some(&Value::from(name)));
    Ok(found.next().unwrap_or_default())
}

/// Waits until these nodes know this of `name`.
fn member_is(bed: &Bed, at: &[usize], name: &str, field: &str, value: &Value) -> Result<()> {
    for index in at {
        wait::until_true(&format!("{name}: {field} {value}"), SETTLED_WITHIN, || {
            Ok(member(bed, *index, name)?.pointer(field) == Some(value))
        })?;
    }
    Ok(())
}
