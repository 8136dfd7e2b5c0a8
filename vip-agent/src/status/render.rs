//! The document as a person reads it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::report::{
    CheckState, ConflictResponse, ConflictStatus, GateState, HandOverStatus, HookStatus, Status,
    VipStatus,
};

/// More shared IPs than these are counted, and those alone are shown of which there is something to say.
const FEW: usize = 20;

/// A few lines of text: the node, what it waits for, its interfaces, its shared IPs.
pub fn render(status: &Status, shows_all: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, status, shows_all);
    text
}

fn write(text: &mut String, status: &Status, shows_all: bool) -> std::fmt::Result {
    let state = format!("{:?}", status.state).to_lowercase();
    writeln!(
        text,
        "node       {} ({state}, pid {}, {})",
        status.node, status.pid, status.version
    )?;
    if let Some(drained) = &status.drained {
        let how = if drained.force { ", by force" } else { "" };
        writeln!(text, "drained    since {}{how}", drained.since)?;
    }
    for reason in &status.waiting_for {
        writeln!(text, "waiting    for {reason}")?;
    }
    for warning in &status.warnings {
        writeln!(text, "warning    {warning}")?;
    }
    match &status.lease {
        Some(lease) => writeln!(
            text,
            "lease      {}, {} ms of {} ms left before the gates shut",
            lease.id, lease.remaining_ms, lease.ttl_ms
        )?,
        None => writeln!(text, "lease      none")?,
    }
    write!(
        text,
        "etcd       {} (revision {})",
        status.etcd.endpoint, status.etcd.revision
    )?;
    match &status.etcd.last_error {
        Some(error) => writeln!(text, ", last error: {error}")?,
        None => writeln!(text)?,
    }
    let members: Vec<&str> = status
        .members
        .iter()
        .map(|member| member.node.as_str())
        .collect();
    writeln!(
        text,
        "members    {}",
        if members.is_empty() {
            "none".into()
        } else {
            members.join(", ")
        }
    )?;
    for interface in &status.interfaces {
        write!(
            text,
            "interface  {}: {}",
            interface.interface, interface.dataplane
        )?;
        if !interface.fenced && interface.dataplane == "kernel" {
            write!(text, " (UNFENCED)")?;
        }
        if let Some(why) = &interface.why_not_better {
            write!(text, " ({why})")?;
        }
        if !interface.guards.is_empty() {
            write!(text, ", guarding {}", interface.guards.join(", "))?;
        }
        writeln!(text)?;
    }
    for hook in &status.hooks {
        write_hook(text, hook)?;
    }
    for check in &status.checks {
        let state = match check.state {
            CheckState::Unchecked => "not checked yet".to_owned(),
            CheckState::Passing => format!("passes since {}", check.since),
            CheckState::Failing => format!("fails since {}", check.since),
        };
        let reason = check.reason.as_deref();
        let reason = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        writeln!(text, "check      {}: {state}{reason}", check.check)?;
    }
    let is_compact = !shows_all && status.vips.len() > FEW;
    if is_compact {
        write_counts(text, &status.vips)?;
    }
    for vip in &status.vips {
        if !is_compact || !is_plain(vip) {
            write_vip(text, vip)?;
        }
    }
    Ok(())
}

fn write_counts(text: &mut String, vips: &[VipStatus]) -> std::fmt::Result {
    let mut roles: BTreeMap<&str, usize> = BTreeMap::new();
    for vip in vips {
        *roles.entry(&vip.role).or_default() += 1;
    }
    let counts: Vec<String> = roles
        .into_iter()
        .map(|(role, count)| format!("{count} {role}"))
        .collect();
    let mut unfit: BTreeMap<&str, usize> = BTreeMap::new();
    for why in vips.iter().filter_map(|vip| vip.unfit.as_deref()) {
        *unfit.entry(why).or_default() += 1;
    }
    for (why, count) in unfit {
        writeln!(text, "           {count} not fit here: {why}")?;
    }
    let plain = vips.iter().filter(|vip| is_plain(vip)).count();
    writeln!(text, "shared IPs {}: {}", vips.len(), counts.join(", "))?;
    if plain > 0 {
        writeln!(
            text,
            "           {plain} as they should be are not shown; --all shows them"
        )?;
    }
    Ok(())
}

/// Whether there is nothing to say of it that is not counted.
fn is_plain(vip: &VipStatus) -> bool {
    let open = vip.gate.state == GateState::Open;
    let stands = match vip.role.as_str() {
        "owner" => open && vip.address,
        "follower" => !open && !vip.address,
        _ => false,
    };
    stands
        && vip.gate.state != GateState::Unfenced
        && vip.handover.is_none()
        && vip.conflict.is_none()
}

fn write_hook(text: &mut String, hook: &HookStatus) -> std::fmt::Result {
    write!(text, "hook       {}: {} ran", hook.event, hook.ran)?;
    let counts = [
        (hook.failed, "failed"),
        (hook.timed_out, "timed out"),
        (hook.merged, "not run for newer news"),
    ];
    for (count, name) in counts.iter().filter(|(count, _)| *count > 0) {
        write!(text, ", {count} {name}")?;
    }
    if let Some(failure) = &hook.last_failure {
        write!(text, " (last failure: {failure})")?;
    }
    writeln!(text)
}

fn write_vip(text: &mut String, vip: &VipStatus) -> std::fmt::Result {
    writeln!(text)?;
    writeln!(
        text,
        "{} on {}: {} since {}",
        vip.ip, vip.interface, vip.role, vip.since
    )?;
    if let Some(cause) = &vip.cause {
        writeln!(text, "  cause    {cause}")?;
    }
    let owner = vip.owner.as_deref().unwrap_or("nobody");
    writeln!(text, "  owner    {owner} (epoch {})", vip.epoch)?;
    if let Some(handover) = &vip.handover {
        write_handover(text, handover)?;
    }
    let next = if vip.next.is_empty() {
        "nobody".to_owned()
    } else {
        vip.next.join(", ")
    };
    writeln!(text, "  next     {next}")?;
    write!(text, "  priority {}", vip.priority)?;
    match &vip.group {
        Some(group) => writeln!(text, ", moves with group {group}")?,
        None => writeln!(text)?,
    }
    match vip.gate.state {
        GateState::Open => writeln!(text, "  gate     open for {} ms", vip.gate.remaining_ms)?,
        GateState::Closed => writeln!(text, "  gate     closed")?,
        GateState::Unfenced => writeln!(text, "  gate     none: UNFENCED")?,
    }
    writeln!(
        text,
        "  address  {}",
        if vip.address { "here" } else { "not here" }
    )?;
    if let Some(why) = &vip.unfit {
        writeln!(text, "  unfit    {why}")?;
    }
    if let Some(conflict) = &vip.conflict {
        write_conflict(text, conflict)?;
    }
    let counters = &vip.counters;
    let counts = [
        ("answered", counters.answered),
        ("delivered", counters.delivered),
        ("sent", counters.sent),
        ("stale", counters.stale),
        ("fenced", counters.fenced),
        ("guarded", counters.guarded),
        ("conflicts", counters.conflicts),
        ("claims dropped", counters.claims_dropped),
        ("claims passed", counters.claims_passed),
        ("looped", counters.looped),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    writeln!(
        text,
        "  frames   {}",
        if counts.is_empty() {
            "none".into()
        } else {
            counts.join(", ")
        }
    )
}

fn write_handover(text: &mut String, handover: &HandOverStatus) -> std::fmt::Result {
    write!(text, "  going    to {}", handover.to)?;
    if handover.waits_for_successor {
        write!(text, ", which gets ready")?;
    }
    match &handover.why {
        Some(why) => writeln!(text, ": {why}"),
        None => writeln!(text),
    }
}

fn write_conflict(text: &mut String, conflict: &ConflictStatus) -> std::fmt::Result {
    let ago = Duration::from_secs(conflict.last_seen_ms_ago / 1000);
    let times = match conflict.count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    let response = match conflict.response {
        ConflictResponse::Defended => "defended",
        ConflictResponse::Yielded => "left to it",
        ConflictResponse::NotClaimed => "not claimed here",
        ConflictResponse::Dropped => "dropped here",
        ConflictResponse::Elsewhere => "dropped there",
    };
    writeln!(
        text,
        "  conflict {} claims it on {}, {times}, last {} ago ({response})",
        conflict.mac,
        conflict.interface,
        humantime::format_duration(ago)
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{super::report::*, *};

    fn vip(last: u8, role: &str) -> VipStatus {
        let is_owner = role == "owner";
        VipStatus {
            ip: IpAddr::from([10, 0, 0, last]),
            interface: "eth0".to_owned(),
            role: role.to_owned(),
            since: "2026-01-01T00:00:00Z".to_owned(),
            cause: Some("claimed".to_owned()),
            priority: 100,
            group: None,
            owner: Some("cp-1".to_owned()),
            epoch: 7,
            next: vec!["cp-2".to_owned(), "cp-3".to_owned()],
            handover: None,
            gate: GateStatus {
                state: if is_owner {
                    GateState::Open
                } else {
                    GateState::Closed
                },
                remaining_ms: 0,
            },
            address: is_owner,
            unfit: None,
            conflict: None,
            counters: Counters::default(),
        }
    }

    fn status(vips: Vec<VipStatus>) -> Status {
        Status {
            node: "cp-1".to_owned(),
            instance: String::new(),
            version: "0.1.0".to_owned(),
            pid: 1,
            since: String::new(),
            state: State::Joined,
            drained: None,
            waiting_for: Vec::new(),
            warnings: Vec::new(),
            lease: None,
            etcd: EtcdStatus {
                endpoint: "http://e:1".to_owned(),
                last_error: None,
                cluster_id: String::new(),
                revision: 1,
            },
            members: Vec::new(),
            hooks: Vec::new(),
            interfaces: Vec::new(),
            checks: Vec::new(),
            vips,
        }
    }

    #[test]
    fn a_few_shared_ips_are_shown_whole() {
        let going = HandOverStatus {
            to: "cp-2".to_owned(),
            why: Some("asked for".to_owned()),
            waits_for_successor: true,
        };
        let one = VipStatus {
            group: Some("web".to_owned()),
            handover: Some(going),
            ..vip(1, "owner")
        };
        let text = render(&status(vec![one, vip(2, "follower")]), false);
        for part in [
            "10.0.0.1 on eth0: owner since 2026-01-01T00:00:00Z\n  cause    claimed\n",
            "  owner    cp-1 (epoch 7)\n",
            "  going    to cp-2, which gets ready: asked for\n",
            "  next     cp-2, cp-3\n",
            "  priority 100, moves with group web\n",
            "10.0.0.2 on eth0: follower",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn of_many_those_alone_are_shown_of_which_there_is_something_to_say() {
        let mut vips: Vec<VipStatus> = (0..100).map(|last| vip(last, "owner")).collect();
        vips.extend((100..=250).map(|last| vip(last, "follower")));
        for one in &mut vips[50..150] {
            one.unfit = Some("tcp x:1 fails".to_owned());
        }
        vips[3].address = false;
        vips[4].gate.state = GateState::Closed;
        vips[5].role = "suspended".to_owned();
        vips[6].gate.state = GateState::Unfenced;
        vips[200].gate.state = GateState::Open;
        vips[201].address = true;
        vips[202].role = "vacant".to_owned();
        let text = render(&status(vips.clone()), false);
        for part in [
            "shared IPs 251: 150 follower, 99 owner, 1 suspended, 1 vacant\n",
            "100 not fit here: tcp x:1 fails\n",
            "244 as they should be are not shown; --all shows them\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let shown = |text: &str| text.matches(" on eth0: ").count();
        assert_eq!(shown(&text), 7, "{text}");
        for last in [3, 4, 5, 6, 200, 201, 202] {
            assert!(text.contains(&format!("10.0.0.{last} on eth0")), "{text}");
        }
        assert_eq!(shown(&render(&status(vips), true)), 251);
    }

    #[test]
    fn a_hook_is_a_line_with_what_went_wrong() {
        let line = |hook: &HookStatus| {
            let mut text = String::new();
            write_hook(&mut text, hook).expect("it is written to memory");
            text
        };
        let mut hook = HookStatus {
            event: "become-owner".to_owned(),
            ran: 3,
            failed: 0,
            timed_out: 0,
            merged: 0,
            last_failure: None,
        };
        assert_eq!(line(&hook), "hook       become-owner: 3 ran\n");
        (hook.failed, hook.timed_out, hook.merged) = (1, 2, 4);
        hook.last_failure = Some("10.0.0.100: exit status 7: no such server".to_owned());
        assert_eq!(
            line(&hook),
            "hook       become-owner: 3 ran, 1 failed, 2 timed out, 4 not run for newer news \
             (last failure: 10.0.0.100: exit status 7: no such server)\n"
        );
    }
}
