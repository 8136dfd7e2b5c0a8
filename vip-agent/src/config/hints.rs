//! What was probably meant, in the words of the file.

/// What `field` was most likely meant to be, or where it belongs.
pub(super) fn meant(field: &str, expected: &[&str]) -> Option<String> {
    let home = match field {
        "endpoints" | "prefix" | "tls" => Some("etcd"),
        "ca" | "cert" | "key" => Some("etcd.tls"),
        "password-file" => Some("etcd.user"),
        "ttl" => Some("lease"),
        "interface" | "dataplane" | "probe" | "vip" | "vips" => Some("interfaces"),
        "become-owner" | "become-follower" | "conflict" => Some("hooks"),
        "ip" | "priority" | "group" => Some("vip"),
        "tcp" | "http" | "exec" | "status" | "interval" | "rise" | "fall" => Some("health"),
        "node" | "lease" | "on-stop" | "on-conflict" | "preempt" | "rebalance"
        | "when-all-unfit" | "hooks" | "state-dir" | "bpf-dir" => Some("the top"),
        _ => None,
    };
    if let Some(home) = home {
        let right = match home {
            "the top" => return Some("it belongs at the top, not indented;".to_owned()),
            _ => home.rsplit('.').next().and_then(example)?,
        };
        return Some(format!("it belongs under `{home}`: `{right}`;"));
    }
    let near = match field {
        "name" if expected.contains(&"interface") => Some("interface"),
        _ => nearest(field, expected),
    };
    near.map(|key| format!("did you mean `{key}`?"))
}

/// How a key is written whose value is more than a word.
pub(super) fn example(key: &str) -> Option<&'static str> {
    Some(match key {
        "etcd" => "etcd: { endpoints: [http://10.0.0.11:2379] }",
        "endpoints" => "endpoints: [http://10.0.0.11:2379]",
        "tls" => "tls: { ca: FILE, cert: FILE, key: FILE }",
        "user" => "user: { name: NAME, password-file: FILE }",
        "lease" => "lease: { ttl: 3s }",
        "hooks" => "hooks: { become-owner: [/usr/local/bin/attach, --fast] }",
        "become-owner" => "become-owner: [/usr/local/bin/attach, --fast]",
        "become-follower" => "become-follower: [/usr/local/bin/detach, --fast]",
        "conflict" => "conflict: [/usr/local/bin/tell]",
        "interfaces" => "interfaces: [{ interface: eth0, vip: { ip: 10.0.0.100 } }]",
        "health" => "health: [{ tcp: 127.0.0.1:6443 }]",
        "exec" => "exec: [/usr/local/bin/check, --fast]",
        "vip" => "vip: { ip: 10.0.0.100 }",
        "vips" => "vips: [{ ip: 10.0.0.100 }, { ip: 10.0.0.101 }]",
        _ => return None,
    })
}

/// The key whose value stands at, or begins at, a place (both from 1): the last one before it on
/// its line, or else the one that the line is indented under.
pub(super) fn key_of(text: &str, line: usize, column: usize) -> Option<&str> {
    let before: Vec<&str> = text.lines().take(line).collect();
    let (last, above) = before.split_last()?;
    let cut = last.char_indices().nth(column.checked_sub(1)?);
    let prefix = &last[..cut.map_or(last.len(), |(at, _)| at)];
    if let Some((key, _)) = prefix.rsplit_once(':') {
        return key.rsplit([' ', '{', '[', ',']).next();
    }
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    // A list may stand in the column of its key.
    let own = indent(last).saturating_sub(usize::from(last.trim_start().starts_with('-')) * 2);
    let of_list = last.trim_start().starts_with('-');
    let parent = above.iter().rev().find(|line| {
        let is_less = indent(line) < own || (of_list && indent(line) == own);
        !line.trim().is_empty() && is_less
    })?;
    parent.trim_start_matches([' ', '-']).split(':').next()
}

/// The key that `wrong` is most likely a slip for, if any is near.
fn nearest<'a>(wrong: &str, keys: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase().replace('_', "-");
    keys.iter()
        .map(|key| (strsim::osa_distance(&wrong, key), *key))
        .filter(|(distance, key)| *distance <= key.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}
