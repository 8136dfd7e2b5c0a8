//! What happened, as a hook is told of it.

use std::{fmt, net::IpAddr};

use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{Hooks, one_line},
    election::Mac,
    status::ConflictResponse,
};

/// What hooks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A shared IP began to be served here.
    BecomeOwner,
    /// It no longer is.
    BecomeFollower,
    /// A machine that is no member claims one.
    Conflict,
}

/// One thing that happened to one shared IP on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Occasion {
    /// Which hook it is for.
    #[serde(rename = "event")]
    pub kind: Kind,
    /// The shared IP.
    pub vip: IpAddr,
    /// Its group, if it is of one.
    pub group: Option<String>,
    /// This node's name.
    pub node: String,
    /// The interface that carries it, or on which the stranger was heard.
    pub interface: String,
    /// What the shared IP is here now: `owner`, `follower`, `vacant`, …
    pub role: String,
    /// Who owns it, as far as known.
    pub owner: Option<String>,
    /// The owner key's revision, 0 where there is none: it grows with every change of hands.
    pub epoch: i64,
    /// Why, in a few words.
    pub cause: String,
    /// When, RFC 3339.
    pub time: String,
    /// Of a conflict: who claims it.
    #[serde(flatten)]
    pub stranger: Option<Stranger>,
}

/// A machine that is no member and claims a shared IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stranger {
    /// Its MAC.
    pub mac: Mac,
    /// By which frame it was heard: `ARP reply`, …
    pub via: &'static str,
    /// What is done about it.
    pub response: ConflictResponse,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::BecomeOwner, Self::BecomeFollower, Self::Conflict];

    /// What is to be run then, if anything.
    pub fn command(self, hooks: &Hooks) -> Option<&Vec<String>> {
        match self {
            Self::BecomeOwner => hooks.become_owner.as_ref(),
            Self::BecomeFollower => hooks.become_follower.as_ref(),
            Self::Conflict => hooks.conflict.as_ref(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BecomeOwner => "become-owner",
            Self::BecomeFollower => "become-follower",
            Self::Conflict => "conflict",
        })
    }
}

impl Occasion {
    /// One JSON object, and a newline.
    pub fn json(&self) -> Vec<u8> {
        let mut text = self.value().to_string();
        text.push('\n');
        text.into_bytes()
    }

    /// The same as variables: each key in capitals behind `VIP_AGENT_`. What is null is empty.
    pub fn environment(&self) -> Vec<(String, String)> {
        let Value::Object(fields) = self.value() else {
            return Vec::new();
        };
        let variable = |(key, value): (String, Value)| {
            let text = match value {
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            // A zero byte, say in what a server answered, would keep the hook from being run.
            (format!("VIP_AGENT_{}", key.to_uppercase()), one_line(&text))
        };
        fields.into_iter().map(variable).collect()
    }

    fn value(&self) -> Value {
        // Its keys are strings and its numbers whole: there is nothing that JSON has not.
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) fn occasion(kind: Kind, last_octet: u8, epoch: i64) -> Occasion {
    Occasion {
        kind,
        vip: IpAddr::from([10, 0, 0, last_octet]),
        group: None,
        node: "n1".to_owned(),
        interface: "eth0".to_owned(),
        role: "owner".to_owned(),
        owner: Some("n1".to_owned()),
        epoch,
        cause: "a test".to_owned(),
        time: "2026-01-02T03:04:05.678Z".to_owned(),
        stranger: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_environment_say_the_same() {
        let mut occasion = occasion(Kind::BecomeOwner, 100, 17);
        occasion.cause = "lease not confirmed: \0\n".to_owned();
        let text = String::from_utf8(occasion.json()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON"),
            serde_json::json!({
                "event": "become-owner",
                "vip": "10.0.0.100",
                "group": null,
                "node": "n1",
                "interface": "eth0",
                "role": "owner",
                "owner": "n1",
                "epoch": 17,
                "cause": "lease not confirmed: \0\n",
                "time": "2026-01-02T03:04:05.678Z",
            })
        );
        let mut environment = occasion.environment();
        environment.sort();
        let expected = [
            ("CAUSE", "lease not confirmed: \\u{0}\\n"),
            ("EPOCH", "17"),
            ("EVENT", "become-owner"),
            ("GROUP", ""),
            ("INTERFACE", "eth0"),
            ("NODE", "n1"),
            ("OWNER", "n1"),
            ("ROLE", "owner"),
            ("TIME", "2026-01-02T03:04:05.678Z"),
            ("VIP", "10.0.0.100"),
        ];
        let expected = expected.map(|(key, text)| (format!("VIP_AGENT_{key}"), text.to_owned()));
        assert_eq!(environment, expected);
    }

    #[test]
    fn a_conflict_says_who_it_is_with() {
        let mut occasion = occasion(Kind::Conflict, 100, 17);
        occasion.stranger = Some(Stranger {
            mac: Mac([0x52, 0x54, 0, 0, 0, 9]),
            via: "ARP reply",
            response: ConflictResponse::NotClaimed,
        });
        let environment = occasion.environment();
        for (key, text) in [
            ("VIP_AGENT_EVENT", "conflict"),
            ("VIP_AGENT_MAC", "52:54:00:00:00:09"),
            ("VIP_AGENT_VIA", "ARP reply"),
            ("VIP_AGENT_RESPONSE", "not-claimed"),
        ] {
            assert!(
                environment.contains(&(key.to_owned(), text.to_owned())),
                "{environment:?}"
            );
        }
    }
}
