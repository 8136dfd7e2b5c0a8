//! The document as a person reads it.

use std::{fmt::Write as _, time::Duration};

use super::report::{
    CheckState, ConflictResponse, ConflictStatus, GateState, HookStatus, Status, VipStatus,
};

/// A few lines of text: the node, what it waits for, its interfaces, its shared IPs.
pub fn render(status: &Status, _shows_all: bool) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, status);
    text
}

fn write(text: &mut String, status: &Status) -> std::fmt::Result {
    let state = format!("{:?}", status.state).to_lowercase();
    writeln!(
        text,
        "node       {} ({state}, pid {}, {})",
        status.node, status.pid, status.version
    )?;
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
    for vip in &status.vips {
        write_vip(text, vip)?;
    }
    Ok(())
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
    let owner = vip.owner.as_deref().unwrap_or("nobody");
    writeln!(text, "  owner    {owner} (epoch {})", vip.epoch)?;
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
    use super::*;

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
