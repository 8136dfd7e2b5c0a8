//! What the agent is told: a file, and flags that go before it. Everything here was checked.

mod changes;
mod check;
mod error;
mod file;
mod hints;
mod hooks;
mod placement;
mod validate;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_saphyr::Spanned;

pub use check::{CheckConfig, Target};
pub use error::{ConfigError, Place, one_line};
use file::{FileConfig, FileHooks, Text};
pub use hooks::Hooks;
use hooks::WrittenHooks;
pub use placement::LARGEST_GROUP;
pub use validate::{
    advice_on_subnet, check_against_other, check_against_subnet, check_bpf_dir, check_node,
};

use crate::dataplane::DataplaneMode;

/// Where the agent keeps its state if it is not told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/vip-agent";
/// Where it pins programs and maps if it is not told otherwise.
pub const DEFAULT_BPF_DIR: &str = "/sys/fs/bpf/vip-agent";

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name, unique in the cluster.
    pub node: String,
    /// How to reach etcd.
    pub etcd: EtcdConfig,
    /// The TTL to ask for, in whole seconds.
    pub lease_ttl: Duration,
    /// What SIGTERM and SIGINT mean.
    pub on_stop: OnStop,
    /// What becomes of a shared IP that another machine claims.
    pub on_conflict: OnConflict,
    /// How long a member of a higher priority has to be fit before it is handed a shared IP; `None`: it is not.
    pub preempt: Option<Duration>,
    /// How long nodes have to be unevenly loaded before the fullest hands shared IPs to the emptiest; `None`: it
    /// does not.
    pub rebalance: Option<Duration>,
    /// What an owner whose health checks fail does when no other member is fit.
    pub when_all_unfit: WhenAllUnfit,
    /// What to run when something happens.
    pub hooks: Hooks,
    /// The interfaces, each with its shared IPs.
    pub interfaces: Vec<InterfaceConfig>,
    /// For the socket, the lock, the instance and the lease.
    pub state_dir: PathBuf,
    /// For pinned programs and maps; on a bpffs.
    pub bpf_dir: PathBuf,
}

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http(s)://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// What all keys begin with; no slash at its end.
    pub prefix: String,
    /// Certificates, for `https`.
    pub tls: Option<Tls>,
    /// A user, where etcd asks for one.
    pub user: Option<User>,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who signed the servers' certificates.
    pub ca: PathBuf,
    /// Who we are, where the servers ask for a client's certificate.
    pub identity: Option<Identity>,
}

/// A certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What a file in PEM should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemKind {
    /// One certificate or more.
    Certificate,
    /// A private key.
    Key,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// A file with the password, and no more than that and a newline.
    pub password_file: PathBuf,
}

/// What SIGTERM and SIGINT mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnStop {
    /// Hand over and leave nothing behind.
    #[default]
    Release,
    /// Leave all as it is for the next start.
    Hold,
}

/// What becomes of a shared IP that a machine claims which is no member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// The owner announces it again.
    #[default]
    Defend,
    /// The owner gives it up, and nobody claims it while the other machine is heard.
    Yield,
}

/// What becomes of a shared IP whose owner's health checks fail, when no other member is fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenAllUnfit {
    /// Its owner keeps it.
    #[default]
    Keep,
    /// Its owner gives it up.
    Release,
}

/// Whether the network is asked who has an address before a first claim of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Probing {
    /// It is asked.
    #[default]
    On,
    /// It is not: a proxy there answers for every address.
    Off,
}

/// An interface that carries shared IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: String,
    /// How its frames are handled.
    pub dataplane: DataplaneMode,
    /// Whether a shared IP is asked for there before the first claim.
    pub probe: Probing,
    /// The shared IPs on it, at least one.
    pub vips: Vec<VipConfig>,
}

/// A shared IP, and where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// The address.
    pub ip: IpAddr,
    /// This node's, 1 to 254: members of a higher one go first.
    pub priority: u8,
    /// Shared IPs of one group move as one; on whatever interface they are.
    pub group: Option<String>,
    /// What has to pass here: its interface's checks, and its own.
    pub health: BTreeSet<CheckConfig>,
}

impl VipConfig {
    /// Of one that nothing else is said of.
    pub const DEFAULT_PRIORITY: u8 = 100;

    /// With the defaults.
    pub fn new(ip: IpAddr) -> Self {
        Self {
            ip,
            priority: Self::DEFAULT_PRIORITY,
            group: None,
            health: BTreeSet::new(),
        }
    }
}

impl From<WhenAllUnfit> for crate::election::WhenAllUnfit {
    fn from(what: WhenAllUnfit) -> Self {
        match what {
            WhenAllUnfit::Keep => Self::Keep,
            WhenAllUnfit::Release => Self::Release,
        }
    }
}

impl InterfaceConfig {
    /// The addresses of its shared IPs.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.iter().map(|vip| vip.ip)
    }

    /// Whether `ip` is one of its shared IPs.
    pub fn carries(&self, ip: IpAddr) -> bool {
        self.ips().any(|own| own == ip)
    }

    /// Whether the kernel enforces gates there.
    pub fn is_fenced(&self) -> bool {
        self.dataplane != DataplaneMode::Kernel
    }

    /// Whether the network is asked before a first claim: without a program nobody would tell of answers.
    pub fn is_probed(&self) -> bool {
        self.is_fenced() && self.probe == Probing::On
    }
}

/// The flags of `vip-agent run`; what is not given is left to the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// This node's name, unique in the cluster [default: the hostname]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// An interface that carries the shared IPs of --vip, in place of the file's interfaces
    #[arg(long, value_name = "NAME", requires = "vip")]
    pub interface: Option<String>,
    /// A shared IP on --interface; may be given more than once
    #[arg(long, value_name = "IP", requires = "interface")]
    pub vip: Vec<String>,
    /// How the frames of --interface are handled
    #[arg(long, value_name = "MODE", requires = "interface")]
    pub dataplane: Option<DataplaneMode>,
    /// Whether the network of --interface is asked who has a shared IP, before the first claim [default: on]
    #[arg(long, value_name = "WHETHER", requires = "interface")]
    pub probe: Option<Probing>,
    /// An etcd endpoint, such as http://10.0.0.11:2379; may be given more than once
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// What all keys in etcd begin with [default: /vip-agent]
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// The lease's TTL in whole seconds [default: 3s]
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<String>,
    /// What SIGTERM and SIGINT mean [default: release]
    #[arg(long, value_name = "WHAT")]
    pub on_stop: Option<OnStop>,
    /// What becomes of a shared IP that another machine claims [default: defend]
    #[arg(long, value_name = "WHAT")]
    pub on_conflict: Option<OnConflict>,
    /// For socket, lock, instance and lease [default: /run/vip-agent]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// For pinned programs and maps, on a bpffs [default: /sys/fs/bpf/vip-agent]
    #[arg(long, value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
struct Written<T = String> {
    value: T,
    place: Place,
}

/// A shared IP as it was written.
struct WrittenVip {
    ip: Written,
    priority: Option<Written>,
    group: Option<Written>,
    health: Vec<Written<CheckConfig>>,
}

impl WrittenVip {
    /// Where no more is written than the address.
    fn of(ip: Written) -> Self {
        Self {
            ip,
            priority: None,
            group: None,
            health: Vec::new(),
        }
    }
}

impl Config {
    /// Reads `file`, lets `flags` go before it, and checks the whole.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        match file {
            Some(path) => Self::from_parts(path, file::read(path)?, flags)
                .map_err(|error| error.in_file(path)),
            None => Self::from_parts(Path::new(""), FileConfig::default(), flags),
        }
    }

    fn from_parts(path: &Path, file: FileConfig, flags: &Flags) -> Result<Self, ConfigError> {
        let in_file = |text: Text| Written {
            place: file::place(path, &text),
            value: text.value,
        };
        let either = |flag: Option<&String>, name, text: Option<Text>| match flag {
            Some(value) => Some(Written {
                value: value.clone(),
                place: Place::Flag(name),
            }),
            None => text.map(in_file),
        };
        let interfaces = match &flags.interface {
            Some(name) => vec![validate::interface(
                Written {
                    value: name.clone(),
                    place: Place::Flag("--interface"),
                },
                flags.dataplane.unwrap_or_default(),
                flags.probe.unwrap_or_default(),
                flags
                    .vip
                    .iter()
                    .map(|vip| {
                        WrittenVip::of(Written {
                            value: vip.clone(),
                            place: Place::Flag("--vip"),
                        })
                    })
                    .collect(),
                Vec::new(),
            )?],
            None => file_interfaces(path, file.interfaces, in_file)?,
        };
        let etcd = file.etcd.unwrap_or_default();
        let endpoints = if flags.etcd.is_empty() {
            etcd.endpoints.into_iter().map(in_file).collect()
        } else {
            let flag = |url: &String| Written {
                value: url.clone(),
                place: Place::Flag("--etcd"),
            };
            flags.etcd.iter().map(flag).collect()
        };
        let tls = etcd
            .tls
            .map(|tls| (in_file(tls.ca), tls.cert.map(in_file), tls.key.map(in_file)));
        let user = etcd
            .user
            .map(|user| [user.name, user.password_file].map(in_file));
        let ttl = either(
            flags.ttl.as_ref(),
            "--ttl",
            file.lease.and_then(|lease| lease.ttl),
        );
        let on_stop = match flags.on_stop {
            Some(on_stop) => on_stop,
            None => validate::on_stop(file.on_stop.map(in_file))?,
        };
        let on_conflict = match flags.on_conflict {
            Some(on_conflict) => on_conflict,
            None => validate::on_conflict(file.on_conflict.map(in_file))?,
        };
        let directory = |flag: &Option<PathBuf>, name, text: Option<Text>| match flag {
            Some(path) => Some(Written {
                value: path.clone(),
                place: Place::Flag(name),
            }),
            None => text.map(in_file).map(|text| Written {
                value: PathBuf::from(text.value),
                place: text.place,
            }),
        };
        let state_dir = directory(&flags.state_dir, "--state-dir", file.state_dir);
        let bpf_dir = directory(&flags.bpf_dir, "--bpf-dir", file.bpf_dir);
        let config = Self {
            node: validate::node(either(flags.node.as_ref(), "--node", file.node))?,
            etcd: EtcdConfig {
                endpoints: validate::endpoints(endpoints, tls.is_some(), &interfaces)?,
                prefix: validate::prefix(either(flags.prefix.as_ref(), "--prefix", etcd.prefix))?,
                tls: tls.map(validate::tls).transpose()?,
                user: user.map(validate::user).transpose()?,
            },
            lease_ttl: validate::ttl(ttl, &interfaces)?,
            on_stop,
            on_conflict,
            preempt: placement::delay(file.preempt.map(in_file), "preempt")?,
            rebalance: placement::delay(file.rebalance.map(in_file), "rebalance")?,
            when_all_unfit: placement::when_all_unfit(file.when_all_unfit.map(in_file))?,
            hooks: hooks::hooks(file.hooks.map(|hooks| file_hooks(path, hooks)))?,
            state_dir: validate::state_dir(state_dir)?,
            bpf_dir: validate::bpf_dir(bpf_dir)?,
            interfaces: validate::unlike(interfaces)?,
        };
        Ok(config)
    }
}

fn file_hooks(path: &Path, file: FileHooks) -> WrittenHooks {
    let word = |text: Text| Written {
        place: file::place(path, &text),
        value: text.value,
    };
    let words = |words: Spanned<Vec<Text>>| Written {
        place: file::place(path, &words),
        value: words.value.into_iter().map(word).collect(),
    };
    WrittenHooks {
        become_owner: file.become_owner.map(words),
        become_follower: file.become_follower.map(words),
        conflict: file.conflict.map(words),
        timeout: file.timeout.map(word),
    }
}

fn file_interfaces(
    path: &Path,
    interfaces: Vec<file::FileInterface>,
    in_file: impl Fn(Text) -> Written + Copy,
) -> Result<Vec<validate::Checked>, ConfigError> {
    interfaces
        .into_iter()
        .map(|one| {
            let name = in_file(one.interface);
            let vips = match (one.vip, one.vips) {
                (Some(_), Some(_)) => {
                    return Err(ConfigError::at(
                        &name.place,
                        format!(
                            "interface {}: `vip` and `vips` are both given; give one",
                            name.value
                        ),
                    ));
                }
                (Some(vip), None) => vec![vip],
                (None, vips) => vips.unwrap_or_default(),
            };
            let mode = validate::dataplane(one.dataplane.map(in_file))?;
            let probe = validate::probe(one.probe.map(in_file))?;
            let health = check::checks(path, one.health)?;
            let vips = vips.into_iter().map(|vip| {
                Ok(WrittenVip {
                    ip: in_file(vip.ip),
                    priority: vip.priority.map(in_file),
                    group: vip.group.map(in_file),
                    health: check::checks(path, vip.health)?,
                })
            });
            let vips = vips.collect::<Result<_, _>>()?;
            validate::interface(name, mode, probe, vips, health)
        })
        .collect()
}

#[cfg(test)]
mod tests;
