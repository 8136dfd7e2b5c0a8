//! A real etcd cluster, one member per node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command;
use crate::netns::Netns;
use crate::node::Node;
use crate::process::Process;
use crate::tls::Certificates;
use crate::wait;

/// How long members may take to elect a leader and answer, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The user of [`Security::Password`] that agents log in as, and its password.
pub const USER: (&str, &str) = ("vip-agent", "correct horse");
/// How long a token of [`Security::Password`] is good for after it was last used.
pub const TOKEN_TTL: Duration = Duration::from_secs(2);
const TOKEN: &str = "vip-testbed";
const ROOT_USER: &str = "root:testbed";

/// Who may talk to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Anybody, in the clear.
    Open,
    /// Who has a client certificate.
    Mtls,
    /// Who has a password; [`USER`] may use the keys under `/vip-agent`.
    Password,
}

/// A static cluster, its members in the order of the nodes.
pub struct Cluster {
    security: Security,
    certificates: Option<Certificates>,
    /// What the servers' certificates are good for.
    addresses: Vec<String>,
    login: bool,
    pre_vote: bool,
    members: Vec<Member>,
}

struct Member {
    name: String,
    netns: Netns,
    address: String,
    directory: PathBuf,
    peers: String,
    process: Option<Process>,
}

/// What one member says of itself.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// The id of the leader it follows; 0 = none.
    pub leader: u64,
}

impl Cluster {
    /// Lays out a cluster over the nodes without starting it. `directory` is for certificates.
    pub fn plan(nodes: &[Node], security: Security, directory: &Path) -> Result<Cluster> {
        let mut peers = Vec::new();
        let mut addresses = vec!["127.0.0.1".to_owned()];
        for node in nodes {
            let address = node.etcd_address()?.to_string();
            peers.push(format!("{}=http://{address}:2380", node.name()));
            addresses.push(address);
        }
        let certificates = match security {
            Security::Mtls => Some(Certificates::issue(&directory.join("tls"), &addresses)?),
            Security::Open | Security::Password => None,
        };
        let member = |node: &Node| -> Result<Member> {
            Ok(Member {
                name: node.name().to_owned(),
                netns: node.netns().clone(),
                address: node.etcd_address()?.to_string(),
                directory: node.directory().to_owned(),
                peers: peers.join(","),
                process: None,
            })
        };
        let members = nodes.iter().map(member).collect::<Result<_>>()?;
        Ok(Cluster {
            security,
            certificates,
            addresses,
            login: false,
            pre_vote: false,
            members,
        })
    }

    /// Has members that start from now on ask whether they could win before they campaign, as etcd 3.5 does by itself.
    pub fn set_pre_vote(&mut self) {
        self.pre_vote = true;
    }

    /// Starts every member, waits until all follow one leader, and sets up users if it has any.
    pub fn start_all(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            self.start(index)?;
        }
        self.ready()?;
        if self.security == Security::Password && !self.login {
            self.set_up_users()?;
        }
        Ok(())
    }

    /// Starts one member, with the data it has.
    pub fn start(&mut self, index: usize) -> Result<()> {
        let scheme = self.scheme();
        let certificates = self.certificates.clone();
        let member = &mut self.members[index];
        let address = &member.address;
        let (client, peer) = (
            format!("{scheme}://{address}:2379"),
            format!("http://{address}:2380"),
        );
        let mut command = Command::new("etcd");
        command.args([
            "--name",
            &member.name,
            "--initial-cluster",
            &member.peers,
            "--initial-cluster-token",
            TOKEN,
            "--logger",
            "zap",
        ]);
        command.arg("--data-dir").arg(member.directory.join("etcd"));
        if self.pre_vote {
            command.arg("--pre-vote");
        }
        command.args([
            "--listen-client-urls",
            &format!("{client},{scheme}://127.0.0.1:2379"),
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        if let Some(certificates) = &certificates {
            command
                .arg("--cert-file")
                .arg(&certificates.server)
                .arg("--key-file")
                .arg(&certificates.server_key);
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(&certificates.ca);
        }
        if self.security == Security::Password {
            // Tokens that are not used for a while go; here a while that a test can wait for.
            command.args(["--auth-token-ttl", &TOKEN_TTL.as_secs().to_string()]);
        }
        // etcd 3.4 refuses to start on this architecture without being told that we know.
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let log = member.directory.join("etcd.log");
        member.process = Some(Process::start(
            &format!("etcd on {}", member.name),
            &member.netns,
            command,
            &log,
        )?);
        Ok(())
    }

    /// Stops one member at once (SIGKILL); its data stays.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Stops all members at one instant.
    pub fn stop_all(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.process.as_mut().map_or(Ok(()), Process::strike)?;
        }
        (0..self.members.len()).try_for_each(|index| self.stop(index))
    }

    /// Sends a signal to one member, which must run.
    pub fn signal(&mut self, index: usize, signal: Signal) -> Result<()> {
        let member = &mut self.members[index];
        let process = member.process.as_mut();
        process
            .with_context(|| format!("etcd on {} does not run", member.name))?
            .signal(signal)
    }

    /// Takes a stopped cluster's data away: it starts anew, and empty.
    pub fn wipe(&mut self) -> Result<()> {
        for index in 0..self.members.len() {
            let data = self.data(index);
            fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        }
        Ok(())
    }

    /// Keeps what one member has in a file.
    pub fn save(&self, index: usize, file: &Path) -> Result<()> {
        let file = file.to_string_lossy();
        self.etcdctl(index, &["snapshot", "save", &file]).map(drop)
    }

    /// Gives every member of a stopped cluster what [`Cluster::save`] kept.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        self.wipe()?;
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let mut command = Command::new("etcdctl");
            command
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore"])
                .arg(file);
            command.args(["--name", &member.name, "--initial-cluster", &member.peers]);
            command.args(["--initial-cluster-token", TOKEN]);
            command.args([
                "--initial-advertise-peer-urls",
                &format!("http://{}:2380", member.address),
            ]);
            command.arg("--data-dir").arg(self.data(index));
            command::succeed(&mut command)?;
        }
        Ok(())
    }

    /// Where one member's data lie.
    pub fn data(&self, index: usize) -> PathBuf {
        self.members[index].directory.join("etcd")
    }

    /// One member's process, if it runs.
    pub fn process(&mut self, index: usize) -> Option<&mut Process> {
        self.members[index].process.as_mut()
    }

    /// Waits until all members that run follow one leader and answer a linearizable read.
    pub fn ready(&mut self) -> Result<()> {
        for index in self.running() {
            wait::until_true(
                &format!(
                    "etcd on {} to follow a leader and answer",
                    self.members[index].name
                ),
                READY_WITHIN,
                || {
                    if let Some(status) = self.members[index]
                        .process
                        .as_mut()
                        .map(Process::exited)
                        .transpose()?
                        .flatten()
                    {
                        bail!(
                            "etcd on {} has ended with {status}",
                            self.members[index].name
                        );
                    }
                    Ok(self.status(index)?.leader != 0
                        && self.etcdctl(index, &["get", "/vip-agent/ready"]).is_ok())
                },
            )?;
        }
        Ok(())
    }

    /// The member behind a client URL.
    pub fn behind(&self, endpoint: &str) -> Result<usize> {
        let all = self.endpoints();
        let found = all.iter().position(|one| one == endpoint);
        found.with_context(|| format!("{endpoint} is none of {all:?}"))
    }

    /// The leader's place among the nodes, as the members that run see it; fails while there is none.
    pub fn leader(&self) -> Result<usize> {
        let statuses: Vec<(usize, MemberStatus)> = self
            .running()
            .into_iter()
            .filter_map(|index| self.status(index).ok().map(|status| (index, status)))
            .collect();
        let leading = statuses
            .iter()
            .find(|(_, status)| status.leader != 0 && status.id == status.leader);
        leading
            .map(|(index, _)| *index)
            .ok_or_else(|| anyhow!("etcd has no leader now: {statuses:?}"))
    }

    /// Moves the leadership to a member, and waits until all see it there.
    pub fn lead_from(&self, index: usize) -> Result<()> {
        let wanted = self.status(index)?.id;
        wait::until_true(
            &format!("etcd on {} to lead", self.members[index].name),
            READY_WITHIN,
            || {
                let leader = self.leader()?;
                if leader != index {
                    self.etcdctl(leader, &["move-leader", &format!("{wanted:x}")])?;
                }
                Ok(self.running().into_iter().all(|index| {
                    self.status(index)
                        .is_ok_and(|status| status.leader == wanted)
                }))
            },
        )
    }

    /// Moves the leadership away from a member, to the next one that runs, if it has it.
    pub fn lead_elsewhere(&self, index: usize) -> Result<()> {
        if self.leader()? != index {
            return Ok(());
        }
        let other = self
            .running()
            .into_iter()
            .find(|other| *other != index)
            .context("no other etcd member runs")?;
        self.lead_from(other)
    }

    /// Asks one member about itself, over its own loopback.
    pub fn status(&self, index: usize) -> Result<MemberStatus> {
        let text = self.etcdctl(index, &["endpoint", "status", "--write-out", "json"])?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("etcdctl said {text}"))?;
        let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_u64);
        let id = number("/0/Status/header/member_id")
            .with_context(|| format!("no member id in {text}"))?;
        Ok(MemberStatus {
            id,
            leader: number("/0/Status/leader").unwrap_or(0),
        })
    }

    /// `etcdctl …` in a member's namespace, over its loopback; with certificate or root's password as needed.
    pub fn etcdctl(&self, index: usize, arguments: &[&str]) -> Result<String> {
        command::succeed(&mut self.etcdctl_command(index, arguments)?)
    }

    /// The same, not yet started.
    pub(crate) fn etcdctl_command(&self, index: usize, arguments: &[&str]) -> Result<Command> {
        let member = &self.members[index];
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--command-timeout", "3s", "--dial-timeout", "2s"]);
        command.args([
            "--endpoints",
            &format!("{}://127.0.0.1:2379", self.scheme()),
        ]);
        if let Some(certificates) = &self.certificates {
            command
                .arg("--cacert")
                .arg(&certificates.ca)
                .arg("--cert")
                .arg(&certificates.client)
                .arg("--key")
                .arg(&certificates.client_key);
        }
        if self.login {
            command.args(["--user", ROOT_USER]);
        }
        command.args(arguments);
        member.netns.place(&mut command)?;
        Ok(command)
    }

    /// All keys under a prefix with their values, asked of a member that runs.
    pub fn keys(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        self.read_keys(&["get", "--prefix", prefix])
    }

    /// As [`Cluster::keys`], at a revision.
    pub fn keys_at(&self, prefix: &str, revision: i64) -> Result<Vec<(String, String)>> {
        self.read_keys(&["get", "--prefix", prefix, "--rev", &revision.to_string()])
    }

    /// The revision at which a key was last written; `None` if there is no such key.
    pub fn mod_revision(&self, key: &str) -> Result<Option<i64>> {
        let index = *self.running().first().context("no etcd member runs")?;
        let text = self.etcdctl(index, &["get", key, "--write-out", "json"])?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("etcdctl said {text}"))?;
        let found = answer.pointer("/kvs/0/mod_revision");
        Ok(found.and_then(Value::as_i64))
    }

    /// The revision that a linearizable read is answered at.
    pub fn revision(&self) -> Result<i64> {
        let index = *self.running().first().context("no etcd member runs")?;
        let text = self.etcdctl(index, &["get", "/", "--write-out", "json"])?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("etcdctl said {text}"))?;
        let revision = answer.pointer("/header/revision").and_then(Value::as_i64);
        revision.with_context(|| format!("no revision in {text}"))
    }

    /// Whether this etcd has a known fault: a leader that could not go on for a while, and was replaced, afterwards has leases revoked that its successor
    /// has been renewing (etcd-io/etcd#15247; mended in 3.4.31 and 3.5.13).
    pub fn revokes_live_leases() -> Result<bool> {
        let version = version()?;
        Ok(version < (3, 4, 31) || ((3, 5, 0)..(3, 5, 13)).contains(&version))
    }

    /// Whether a member can depose the leader by its mere coming back: one that was cut off campaigned all the while, and its term is ahead; one that
    /// starts may campaign before it hears of the leader. From 3.5 on a member asks first whether it could win (PreVote).
    pub fn is_disturbed_by_who_comes_back() -> Result<bool> {
        Ok(version()? < (3, 5, 0))
    }

    /// Whether a key stood at an earlier revision.
    pub fn had_key(&self, key: &str, revision: i64) -> Result<bool> {
        let index = *self.running().first().context("no etcd member runs")?;
        let revision = revision.to_string();
        let text = self.etcdctl(index, &["get", "--keys-only", "--rev", &revision, key])?;
        Ok(text.lines().any(|line| line == key))
    }

    /// Client URLs of all members, in the order of the nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| format!("{}://{}:2379", self.scheme(), member.address))
            .collect()
    }

    /// The namespace that a member runs in.
    pub(crate) fn netns(&self, index: usize) -> &Netns {
        &self.members[index].netns
    }

    /// The certificates of [`Security::Mtls`].
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Replaces all certificates and keys on disk, the CA's too. Members take them up when they are started anew.
    pub fn replace_certificates(&self) -> Result<()> {
        let standing = self
            .certificates
            .as_ref()
            .context("the cluster has no certificates")?;
        let directory = standing.ca.parent().context("they lie nowhere")?;
        Certificates::issue(directory, &self.addresses)?;
        Ok(())
    }

    /// Gives [`USER`] another password, by taking it away and making it anew: all its tokens go.
    pub fn change_password(&self, password: &str) -> Result<()> {
        let name = USER.0;
        for arguments in [
            &["user", "delete", name][..],
            &["user", "add", &format!("{name}:{password}")],
            &["user", "grant-role", name, "vip"],
        ] {
            self.etcdctl(0, arguments)?;
        }
        Ok(())
    }

    /// Who may talk to it.
    pub fn security(&self) -> Security {
        self.security
    }

    /// Lets all members run on after we are gone.
    pub fn leave(&mut self) {
        for process in self
            .members
            .iter_mut()
            .filter_map(|member| member.process.as_mut())
        {
            process.leave();
        }
    }

    /// The log files, one per node.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.members
            .iter()
            .map(|member| member.directory.join("etcd.log"))
            .collect()
    }

    fn read_keys(&self, arguments: &[&str]) -> Result<Vec<(String, String)>> {
        let index = *self.running().first().context("no etcd member runs")?;
        let text = self.etcdctl(index, arguments)?;
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines.chunks(2).map(|pair| {
            let value = pair.get(1).copied().unwrap_or_default();
            (pair[0].to_owned(), value.to_owned())
        });
        Ok(pairs.collect())
    }

    /// The members that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|index| self.members[*index].process.is_some())
            .collect()
    }

    fn scheme(&self) -> &'static str {
        if self.certificates.is_some() {
            "https"
        } else {
            "http"
        }
    }

    fn set_up_users(&mut self) -> Result<()> {
        let (name, password) = USER;
        for arguments in [
            &["user", "add", ROOT_USER][..],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "vip"],
            &[
                "role",
                "grant-permission",
                "--prefix=true",
                "vip",
                "readwrite",
                "/vip-agent",
            ],
            &["user", "add", &format!("{name}:{password}")],
            &["user", "grant-role", name, "vip"],
            &["auth", "enable"],
        ] {
            self.etcdctl(0, arguments)?;
        }
        self.login = true;
        Ok(())
    }
}

/// Of the etcd that is installed.
fn version() -> Result<(u32, u32, u32)> {
    let text = command::run("etcd", &["--version"])?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "));
    let numbers: Vec<u32> = version
        .into_iter()
        .flat_map(|version| version.trim().split('.'))
        .map_while(|number| number.parse().ok())
        .collect();
    match numbers[..] {
        [major, minor, patch] => Ok((major, minor, patch)),
        _ => bail!("etcd tells no version: {text}"),
    }
}
