//! Captures, and what tcpdump, which shares nothing with us, makes of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// What tcpdump says of what it cannot make sense of, or finds wrong.
const COMPLAINTS: [&str; 9] = [
    "[|",
    "bad",
    "wrong",
    "invalid",
    "truncated",
    "malformed",
    "unknown",
    "incorrect",
    "length 0",
];

/// Has tcpdump decode frames from a capture file, and returns its lines: one for each frame, with what follows on others joined to it.
pub fn decode(frames: &[&[u8]], file: &Path) -> Result<Vec<String>> {
    fs::write(file, pcap(frames)?).with_context(|| format!("writing {}", file.display()))?;
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-vvv", "-e", "-n", "-t", "-r"]).arg(file);
    let text = command::succeed(&mut tcpdump)?;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with(char::is_whitespace) => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    Ok(lines)
}

/// Fails if tcpdump finds anything wrong with one of these frames, or does not confirm an ICMPv6 checksum.
pub fn finds_nothing_wrong(frames: &[&[u8]], file: &Path) -> Result<()> {
    let lines = decode(frames, file)?;
    ensure!(
        lines.len() == frames.len(),
        "of {} frames tcpdump decoded {}",
        frames.len(),
        lines.len()
    );
    for line in &lines {
        let complaint = complaint(line);
        ensure!(complaint.is_none(), "tcpdump says {complaint:?}: {line}");
    }
    Ok(())
}

/// What is wrong with a line of tcpdump's.
pub fn complaint(line: &str) -> Option<&'static str> {
    // It does not know the nonce (RFC 3971, section 5.3.2), which Linux puts in when it looks for duplicates.
    let lower = line.to_lowercase().replace("unknown option (14)", "nonce");
    let found = COMPLAINTS.into_iter().find(|words| lower.contains(words));
    let unconfirmed = lower.contains("icmp6") && !lower.contains("[icmp6 sum ok]");
    found.or(unconfirmed.then_some("no word on the checksum"))
}

/// A capture file of Ethernet frames, without times.
fn pcap(frames: &[&[u8]]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for frame in frames {
        let length = u32::try_from(frame.len())?.to_le_bytes();
        file.extend([0; 8]);
        file.extend(length);
        file.extend(length);
        file.extend(*frame);
    }
    Ok(file)
}
