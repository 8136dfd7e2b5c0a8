//! The cluster as a person reads it.

use std::{collections::BTreeMap, net::IpAddr};

use super::answer::{Members, Node, NodeState, Unit};

/// Two tables: the nodes, and what moves as one with its owner and those who are next.
pub fn render(members: &Members) -> String {
    let mut nodes = vec![Row::new([
        "NODE", "STATE", "HOST", "VERSION", "TTL", "HOLDS",
    ])];
    nodes.extend(members.members.iter().map(node));
    let mut units = vec![Row::new(["SHARED IPS", "OWNER", "SINCE", "NEXT IN LINE"])];
    units.extend(members.units.iter().map(unit));
    let doubt = if members.up_to_date {
        String::new()
    } else {
        format!(
            "{} does not see at present what etcd holds; this is what it last knew:\n\n",
            members.seen_by
        )
    };
    format!("{doubt}{}\n{}", table(&nodes), table(&units))
}

/// A row of cells, and lines of what else there is to say of it.
struct Row {
    cells: Vec<String>,
    notes: Vec<String>,
}

impl Row {
    fn new<const N: usize>(cells: [&str; N]) -> Self {
        Self {
            cells: cells.map(str::to_owned).to_vec(),
            notes: Vec::new(),
        }
    }
}

fn node(node: &Node) -> Row {
    let holds = match node.holds.len() {
        0 => "nothing".to_owned(),
        _ => some(&node.holds),
    };
    let ttl = format!("{} ms", node.ttl_ms);
    let is_there = node.state != NodeState::Absent;
    let state = state(node);
    let cells = [
        node.node.as_str(),
        state.as_str(),
        or_dash(&node.host),
        or_dash(&node.version),
        if is_there { ttl.as_str() } else { "-" },
        holds.as_str(),
    ];
    let mut row = Row::new(cells);
    let mut alike: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for (vip, why) in &node.unfit {
        alike.entry(why).or_default().push(*vip);
    }
    let unfit = alike.into_iter();
    row.notes
        .extend(unfit.map(|(why, vips)| format!("not fit for {}: {why}", some(&vips))));
    if !node.ready.is_empty() {
        row.notes
            .push(format!("ready to take over {}", some(&node.ready)));
    }
    let asks = node.asks.iter();
    row.notes
        .extend(asks.map(|(vip, to)| format!("asks that {vip} go to {to}")));
    row
}

fn state(node: &Node) -> String {
    let mut state = match (node.state, node.holds.len()) {
        (NodeState::Absent, _) => "no member".to_owned(),
        (NodeState::Leaving, _) => "leaving".to_owned(),
        (NodeState::Member, 0) if node.fit_for == 0 => "not fit".to_owned(),
        (NodeState::Member, 0) => "follower".to_owned(),
        (NodeState::Member, count) => format!("owner of {count}"),
    };
    if node.drained {
        state.push_str(", drained");
        if let Some(since) = &node.drained_since {
            state.push_str(" since ");
            state.push_str(since);
        }
    }
    state
}

fn unit(unit: &Unit) -> Row {
    let vips = unit.vips.iter().map(ToString::to_string);
    let vips = vips.collect::<Vec<_>>().join(", ");
    let vips = match &unit.group {
        Some(group) => format!("{group}: {vips}"),
        None => vips,
    };
    let owners = unit.owners.iter();
    let owners = owners.map(|owner| match &owner.successor {
        Some(successor) => format!("{}, about to go to {successor}", owner.node),
        None => owner.node.clone(),
    });
    let owners = owners.collect::<Vec<_>>().join("; ");
    let since = unit.owners.iter().map(|owner| owner.since.clone()).min();
    let next = unit.next.iter();
    let next = next.map(|next| format!("{} ({})", next.node, next.priority));
    let next = next.collect::<Vec<_>>().join(", ");
    let owners = if owners.is_empty() { "nobody" } else { &owners };
    let next = if next.is_empty() { "nobody" } else { &next };
    Row::new([
        &vips,
        owners,
        or_dash(since.as_deref().unwrap_or_default()),
        next,
    ])
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn some(vips: &[IpAddr]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = vips.iter().take(SHOWN).map(ToString::to_string).collect();
    match vips.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// In columns, each as wide as its widest cell.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.cells.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
        for note in &row.notes {
            text.push_str(&format!("{:indent$}  {note}\n", "", indent = widths[0]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::{UnitOwner, Waiting},
        *,
    };

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn member(name: &str) -> Node {
        Node {
            node: name.to_owned(),
            host: format!("host-of-{name}"),
            version: "0.1.0".to_owned(),
            ttl_ms: 3000,
            state: NodeState::Member,
            drained: false,
            drained_since: None,
            drained_by_force: false,
            holds: Vec::new(),
            fit_for: 2,
            unfit: BTreeMap::new(),
            ready: Vec::new(),
            asks: BTreeMap::new(),
        }
    }

    #[test]
    fn nodes_and_units_are_two_tables() {
        let owner = Node {
            holds: (1..=5).map(ip).collect(),
            asks: BTreeMap::from([(ip(9), "b".to_owned())]),
            ..member("a")
        };
        let unfit = Node {
            fit_for: 0,
            unfit: [7, 8]
                .map(|last| (ip(last), "tcp x:1 fails".to_owned()))
                .into(),
            ready: vec![ip(1)],
            ..member("b")
        };
        let drained = Node {
            state: NodeState::Absent,
            host: String::new(),
            version: String::new(),
            drained: true,
            drained_since: Some("2026-01-01T00:00:00Z".to_owned()),
            ..member("cp-3")
        };
        let units = vec![
            Unit {
                vips: vec![ip(1), "fd00::1".parse().expect("an address")],
                group: Some("web".to_owned()),
                owners: vec![UnitOwner {
                    node: "a".to_owned(),
                    since: "2026-01-01T00:00:00Z".to_owned(),
                    successor: Some("b".to_owned()),
                }],
                next: vec![
                    Waiting {
                        node: "b".to_owned(),
                        priority: 200,
                    },
                    Waiting {
                        node: "d".to_owned(),
                        priority: 100,
                    },
                ],
            },
            Unit {
                vips: vec![ip(2)],
                group: None,
                owners: Vec::new(),
                next: Vec::new(),
            },
        ];
        let members = Members {
            seen_by: "a".to_owned(),
            up_to_date: true,
            members: vec![owner, unfit, drained],
            units,
        };
        assert_eq!(
            render(&members),
            "\
NODE  STATE                                          HOST       VERSION  TTL      HOLDS
a     owner of 5                                     host-of-a  0.1.0    3000 ms  10.0.0.1, 10.0.0.2, 10.0.0.3 and 2 more
      asks that 10.0.0.9 go to b
b     not fit                                        host-of-b  0.1.0    3000 ms  nothing
      not fit for 10.0.0.7, 10.0.0.8: tcp x:1 fails
      ready to take over 10.0.0.1
cp-3  no member, drained since 2026-01-01T00:00:00Z  -          -        -        nothing

SHARED IPS              OWNER                SINCE                 NEXT IN LINE
web: 10.0.0.1, fd00::1  a, about to go to b  2026-01-01T00:00:00Z  b (200), d (100)
10.0.0.2                nobody               -                     nobody
"
        );
        let outdated = Members {
            up_to_date: false,
            ..members
        };
        let text = render(&outdated);
        assert!(text.starts_with("a does not see at present"), "{text}");
    }
}
