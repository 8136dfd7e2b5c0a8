//! The answer.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use crate::status::Status;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// How it is going, for people.
    Progress(String),
    /// It is done. The last line.
    Result(Success),
    /// It is not. The last line.
    Error(Error),
}

/// What was asked for, done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Success {
    /// How the agent is.
    Status(Box<Status>),
    /// Who is in, and who has what.
    Members(Members),
    /// A shared IP is where it was to go.
    Transfer(Transferred),
    /// A node is drained.
    Drain(Drained),
    /// A node is not.
    Undrain(Drained),
    /// The configuration was read again, and taken up.
    Reload(Reloaded),
}

/// What was asked for, refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What kind, for programs.
    pub kind: ErrorKind,
    /// What, where and what to do, for people: one line.
    pub message: String,
}

/// What programs tell errors apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request was not understood.
    BadRequest,
    /// This agent cannot do that.
    Unsupported,
    /// The agent is no member at present, or does not see what etcd holds.
    Unavailable,
    /// etcd refused or did not answer.
    Etcd,
    /// Too many wait already.
    Busy,
    /// There is no such shared IP.
    UnknownVip,
    /// Nobody owns it.
    Vacant,
    /// There is no such member.
    NoMember,
    /// The node is drained.
    Drained,
    /// The node is not fit for it.
    Unfit,
    /// Somebody asked for something else since.
    Superseded,
    /// The new configuration is wrong.
    BadConfig,
    /// It changes what only a restart can.
    NeedsRestart,
    /// Nobody else is fit to take what the node holds: nothing was changed.
    NobodyElse,
    /// The node is drained, and keeps what nobody else has become fit to take.
    Stuck,
    /// It was tried, and came to nothing.
    Failed,
    /// It was not done in time.
    Timeout,
    /// No agent runs there.
    NoAgent,
    /// The user may not ask.
    Denied,
    /// The agent runs and did not answer in time, or hung up.
    NoAnswer,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// Who is in, and who has what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Who tells it.
    pub seen_by: String,
    /// Whether that node sees at present what etcd holds; if not, this is what it last knew.
    pub up_to_date: bool,
    /// Members, and drained nodes that are none, by name.
    pub members: Vec<Node>,
    /// What moves as one, of the shared IPs of the node that tells it.
    pub units: Vec<Unit>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// Its machine's hostname.
    pub host: String,
    /// Its software's version.
    pub version: String,
    /// What etcd granted it.
    pub ttl_ms: u64,
    /// Whether it is in.
    pub state: NodeState,
    /// Whether it is to hold nothing.
    pub drained: bool,
    /// Since when, RFC 3339.
    pub drained_since: Option<String>,
    /// Whether it gives up also what nobody else can take.
    pub drained_by_force: bool,
    /// What it holds.
    pub holds: Vec<IpAddr>,
    /// How many shared IPs it could hold.
    pub fit_for: usize,
    /// Why it could not, or should not, hold others.
    pub unfit: BTreeMap<IpAddr, String>,
    /// What it stands ready to take over.
    pub ready: Vec<IpAddr>,
    /// What it was asked to have moved, and to which node.
    pub asks: BTreeMap<IpAddr, String>,
}

/// Whether a node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It is a member.
    Member,
    /// It is one, and offers nothing any more.
    Leaving,
    /// It is none.
    Absent,
}

/// What moves as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its shared IPs.
    pub vips: Vec<IpAddr>,
    /// The name of its group.
    pub group: Option<String>,
    /// Who owns it: nobody, or one, or several while a group comes together.
    pub owners: Vec<UnitOwner>,
    /// Who could take it from its owner, who would be first.
    pub next: Vec<Waiting>,
}

/// Who owns a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitOwner {
    /// The node.
    pub node: String,
    /// Since when, RFC 3339, as its record says.
    pub since: String,
    /// To whom it is about to hand it.
    pub successor: Option<String>,
}

/// Who could take a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The node.
    pub node: String,
    /// Its priority for the unit.
    pub priority: u8,
}

/// A shared IP is where it was to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// What moved as one.
    pub vips: Vec<IpAddr>,
    /// Where it is.
    pub to: String,
    /// Whether it was there before.
    pub already: bool,
}

/// A node is drained, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The node.
    pub node: String,
    /// Whether that was so before.
    pub already: bool,
    /// Whether it is a member.
    pub member: bool,
    /// What it holds.
    pub holds: Vec<IpAddr>,
    /// What of that nobody else can take, and why.
    pub warnings: Vec<String>,
}

/// What is different in a configuration that was taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Shared IPs that are new.
    pub added: Vec<IpAddr>,
    /// Those that are handed over or given up, and are no longer configured.
    pub removed: Vec<IpAddr>,
    /// Those of which something else is said.
    pub changed: Vec<IpAddr>,
    /// Whether anything else is different.
    pub others: bool,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (vips, what) in [
            (&self.added, "added"),
            (&self.removed, "removed"),
            (&self.changed, "changed"),
        ] {
            if !vips.is_empty() {
                let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
                parts.push(format!("{what} {}", vips.join(", ")));
            }
        }
        if self.others {
            parts.push("changed what is said of all".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing is different".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// To who asked. What is sent to one who has gone is lost.
#[derive(Debug)]
pub struct Reply(UnboundedSender<Line>);

impl Reply {
    pub(super) fn new(lines: UnboundedSender<Line>) -> Self {
        Self(lines)
    }

    /// Says how it is going.
    pub fn progress(&self, text: impl Into<String>) {
        let _ = self.0.send(Line::Progress(text.into()));
    }

    /// The end: it is done, or not.
    pub fn end(self, result: Result<Success, Error>) {
        let _ = self.0.send(match result {
            Ok(success) => Line::Result(success),
            Err(error) => Line::Error(error),
        });
    }

    /// Whether who asked has gone.
    pub fn is_in_vain(&self) -> bool {
        self.0.is_closed()
    }
}
