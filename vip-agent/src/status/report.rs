//! The document itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::election::Mac;

/// Everything about one agent at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Which life of it.
    pub instance: String,
    /// The software's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub since: String,
    /// How far it has come.
    pub state: State,
    /// Whether it is to hold nothing.
    #[serde(default)]
    pub drained: Option<DrainStatus>,
    /// What keeps it from serving, if anything.
    pub waiting_for: Vec<String>,
    /// What is amiss and does not keep it from serving.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Its lease.
    pub lease: Option<LeaseStatus>,
    /// The cluster behind it.
    pub etcd: EtcdStatus,
    /// Who is in.
    pub members: Vec<MemberStatus>,
    /// The hooks that are configured, or were.
    #[serde(default)]
    pub hooks: Vec<HookStatus>,
    /// The interfaces that carry shared IPs.
    pub interfaces: Vec<InterfaceStatus>,
    /// The health checks.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// The shared IPs.
    pub vips: Vec<VipStatus>,
}

/// How far an agent has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not a member yet.
    Waiting,
    /// A member.
    Joined,
    /// On its way out.
    Stopping,
}

/// That a node is to hold nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Since when, RFC 3339, by the clock of who asked for it.
    pub since: String,
    /// Whether it gives up also what nobody else can take.
    pub force: bool,
}

/// The lease that all depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// As etcdctl prints it.
    pub id: String,
    /// What etcd granted.
    pub ttl_ms: u64,
    /// Until the deadline at which all gates shut.
    pub remaining_ms: u64,
}

/// How etcd has been answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// The endpoint that is asked first.
    pub endpoint: String,
    /// What last went wrong, since something last went right.
    pub last_error: Option<String>,
    /// As etcdctl prints it.
    pub cluster_id: String,
    /// The newest revision that was seen.
    pub revision: i64,
}

/// A member of the cluster of agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub node: String,
    /// Which life of it.
    pub instance: String,
    /// Its machine's hostname.
    pub host: String,
    /// Its MACs.
    pub macs: Vec<Mac>,
}

/// What became of the hooks of one event since the agent started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Which: `become-owner`, …
    pub event: String,
    /// Those that ended, however they did.
    pub ran: u64,
    /// Of these: those that could not be started, or ended with another exit status than 0 or by a signal.
    pub failed: u64,
    /// Of these: those that were killed at their limit.
    pub timed_out: u64,
    /// Those that were not run, because newer news of the shared IP came before their turn.
    pub merged: u64,
    /// Which shared IP the last that did not end well was for, and how it ended.
    pub last_failure: Option<String>,
}

/// An interface that carries shared IPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// Its index, 0 while there is no such interface.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// What the configuration asks for.
    pub requested: String,
    /// What was attached: `native`, `generic`, `kernel`, or `none` yet.
    pub dataplane: String,
    /// Why nothing better was.
    pub why_not_better: Option<String>,
    /// Whether the kernel shuts the gate by itself.
    pub fenced: bool,
    /// Other interfaces that are kept from speaking for the shared IPs.
    pub guards: Vec<String>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its kind and what it tries: `tcp 127.0.0.1:6443`.
    pub check: String,
    /// What it has come to.
    pub state: CheckState,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why it fails.
    pub reason: Option<String>,
}

/// What a health check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// Its first run has not ended.
    Unchecked,
    /// All is well.
    Passing,
    /// Something is not.
    Failing,
}

/// A shared IP on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub ip: IpAddr,
    /// Its interface.
    pub interface: String,
    /// What it is here: `owner`, `follower`, …
    pub role: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// What made it so, since the agent started.
    #[serde(default)]
    pub cause: Option<String>,
    /// This node's priority for it.
    #[serde(default)]
    pub priority: u8,
    /// With which others it moves as one.
    #[serde(default)]
    pub group: Option<String>,
    /// Who has it.
    pub owner: Option<String>,
    /// The owner key's revision.
    pub epoch: i64,
    /// Who could take it from its owner, who would be first.
    #[serde(default)]
    pub next: Vec<String>,
    /// Where it is about to go.
    #[serde(default)]
    pub handover: Option<HandOverStatus>,
    /// The kernel's gate.
    pub gate: GateStatus,
    /// Whether the address is on the interface.
    pub address: bool,
    /// Why others should have it rather, or this node cannot have it.
    #[serde(default)]
    pub unfit: Option<String>,
    /// The machine that claimed it last and is no member, if any did since the agent started.
    #[serde(default)]
    pub conflict: Option<ConflictStatus>,
    /// What its frames came to, since the counters were made.
    pub counters: Counters,
}

/// A hand-over that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOverStatus {
    /// To which node.
    pub to: String,
    /// Why, where its owner is asked.
    pub why: Option<String>,
    /// Whether that node is not ready yet, as far as is known here: its owner serves it until then.
    pub waits_for_successor: bool,
}

/// A gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// What it is.
    pub state: GateState,
    /// How long an open one stays so without a renewal.
    pub remaining_ms: u64,
}

/// What a gate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// Frames for the shared IP pass.
    Open,
    /// They are dropped.
    Closed,
    /// There is no gate: `dataplane: kernel`.
    Unfenced,
}

/// A machine that is no member and claims a shared IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictStatus {
    /// Its MAC.
    pub mac: Mac,
    /// Where it was heard.
    pub interface: String,
    /// By which frame it was heard last: `ARP reply`, …
    pub via: String,
    /// How often it was told of: once a second at most, however many frames there are. Those the
    /// counter `conflicts` has.
    pub count: u64,
    /// When it was first heard, RFC 3339.
    pub first_seen: String,
    /// And when last.
    pub last_seen: String,
    /// How long ago that was.
    pub last_seen_ms_ago: u64,
    /// What was done about it.
    pub response: ConflictResponse,
}

/// What is done about a machine that is no member and claims a shared IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictResponse {
    /// It is ours, and announced again, at most every 10 s.
    Defended,
    /// It is left to that machine.
    Yielded,
    /// Nobody owns it, and it is not claimed.
    NotClaimed,
    /// Its frames are dropped; the rest is the owner's to do.
    Dropped,
    /// They are dropped, on an interface that does not carry the shared IP.
    Elsewhere,
}

/// Frames by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// ARP requests answered in XDP.
    pub answered: u64,
    /// Packets for the shared IP let through.
    pub delivered: u64,
    /// Frames for the shared IP dropped because the gate was closed.
    pub stale: u64,
    /// Our own frames come back, dropped.
    pub looped: u64,
    /// Claims of the shared IP by a MAC that no member has.
    pub conflicts: u64,
    /// Claims that were kept from the kernel.
    pub claims_dropped: u64,
    /// Claims that were let through: the owner's own.
    pub claims_passed: u64,
    /// Frames stopped on other interfaces.
    pub guarded: u64,
    /// Frames that speak for the shared IP, sent.
    pub sent: u64,
    /// Frames that would have spoken for it, dropped.
    pub fenced: u64,
}
