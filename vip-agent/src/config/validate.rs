//! What the values mean, and which can't be.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    ConfigError, DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, Identity, InterfaceConfig, OnConflict, OnStop,
    PemKind, Place, Probing, Tls, User, VipConfig, Written, WrittenVip,
    check::{self, CheckConfig},
    placement,
};
use crate::dataplane::DataplaneMode;

const DEFAULT_TTL: Duration = Duration::from_secs(3);
/// With etcd at its defaults. What is below it is silently raised, and promises nothing more.
const SHORTEST_TTL: Duration = Duration::from_secs(2);
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Without a gate an address is given whole seconds up to the deadline less one: of a TTL of 2 s
/// nothing would be left.
const SHORTEST_TTL_WITHOUT_GATE: Duration = Duration::from_secs(3);
const DEFAULT_PREFIX: &str = "/vip-agent";
/// `IFNAMSIZ` of `linux/if.h`, less the zero at the end.
const LONGEST_INTERFACE_NAME: usize = 15;

/// An interface with the places of its parts, for what is to be said of several.
#[derive(Debug)]
pub(super) struct Checked {
    name: Written,
    dataplane: DataplaneMode,
    probe: Probing,
    vips: Vec<Written<VipConfig>>,
    /// Of the interface and of its shared IPs.
    checks: Vec<Written<CheckConfig>>,
}

/// Refuses a shared IP that cannot be one on an interface with these addresses of its own.
pub fn check_against_subnet(vip: IpAddr, addresses: &[IpNet]) -> Result<(), ConfigError> {
    for own in addresses {
        if own.addr() == vip {
            return Err(ConfigError::new(format!(
                "vip {vip} is the interface's own address; a shared IP must be one that no machine has"
            )));
        }
        if let Some(kind) = not_a_host(vip, own) {
            return Err(ConfigError::new(format!(
                "vip {vip} is the {kind} address of {}; choose a host address in it",
                own.trunc()
            )));
        }
    }
    Ok(())
}

/// Refuses a shared IP that is an address of another interface of this machine. A link-local one
/// is another address on each link.
pub fn check_against_other(
    vip: IpAddr,
    name: &str,
    addresses: &[IpNet],
) -> Result<(), ConfigError> {
    if !is_link_local(vip) && addresses.iter().any(|own| own.addr() == vip) {
        return Err(ConfigError::new(format!(
            "vip {vip} is this machine's own address on {name}; a shared IP must be one that no machine has"
        )));
    }
    Ok(())
}

/// What is to be said of a shared IP that no network of its interface holds, which may be meant.
pub fn advice_on_subnet(vip: IpAddr, name: &str, addresses: &[IpNet]) -> Option<String> {
    let is_of_its_kind =
        |own: &&IpNet| own.addr().is_ipv4() == vip.is_ipv4() && !is_link_local(own.addr());
    let networks: Vec<IpNet> = addresses.iter().filter(is_of_its_kind).copied().collect();
    let is_inside = networks.iter().any(|own| own.contains(&vip));
    if networks.is_empty() || is_inside || is_link_local(vip) {
        return None;
    }
    let networks: Vec<String> = networks.iter().map(|own| own.trunc().to_string()).collect();
    let question = match vip {
        IpAddr::V4(_) => "ARP request",
        IpAddr::V6(_) => "Neighbour Solicitation",
    };
    Some(format!(
        "{vip} is in none of {name}'s networks ({}): who has no route to it there sends no {question} for it",
        networks.join(", ")
    ))
}

pub(super) fn node(written: Option<Written>) -> Result<String, ConfigError> {
    let Written { value, place } = match written {
        Some(written) => written,
        None => {
            let hostname = nix::unistd::gethostname().map_err(|errno| {
                ConfigError::new(format!(
                    "the hostname cannot be read ({errno}); give `node`"
                ))
            })?;
            Written {
                value: hostname.to_string_lossy().into_owned(),
                place: Place::Key("node"),
            }
        }
    };
    check_node(&value).map_err(|why| ConfigError::at(&place, why))?;
    Ok(value)
}

/// Whether a node can go by this name.
pub fn check_node(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) {
        return Err(format!(
            "`{name}` is no node name; write 1 to 253 letters, digits, `.`, `_` or `-`"
        ));
    }
    Ok(())
}

pub(super) fn interface(
    name: Written,
    dataplane: DataplaneMode,
    probe: Probing,
    vips: Vec<WrittenVip>,
    health: Vec<Written<CheckConfig>>,
) -> Result<Checked, ConfigError> {
    let wrong = |why: &str| {
        Err(ConfigError::at(
            &name.place,
            format!("interface `{}`: {why}", name.value),
        ))
    };
    match name.value.as_str() {
        "" => return wrong("the name is empty; write one that `ip link` shows"),
        "." | ".." => return wrong("Linux has no such name; write one that `ip link` shows"),
        "lo" => return wrong("the loopback has no neighbours; name the interface of the network"),
        text if text.len() > LONGEST_INTERFACE_NAME => {
            return wrong("the name is too long; Linux allows 15 characters");
        }
        text if text.contains(|c: char| "/:".contains(c) || c.is_whitespace()) => {
            return wrong(
                "the name holds a slash, a colon or a blank; write one that `ip link` shows",
            );
        }
        _ => {}
    }
    if vips.is_empty() {
        return wrong("it has no shared IP; add `vip: { ip: … }`");
    }
    let mut checks = health.clone();
    checks.extend(vips.iter().flat_map(|vip| vip.health.iter().cloned()));
    let vips = vips
        .into_iter()
        .map(|one| vip(one, &health))
        .collect::<Result<_, _>>()?;
    Ok(Checked {
        name,
        dataplane,
        probe,
        vips,
        checks,
    })
}

pub(super) fn dataplane(written: Option<Written>) -> Result<DataplaneMode, ConfigError> {
    choice(written, "dataplane")
}

pub(super) fn on_stop(written: Option<Written>) -> Result<OnStop, ConfigError> {
    choice(written, "on-stop")
}

pub(super) fn on_conflict(written: Option<Written>) -> Result<OnConflict, ConfigError> {
    choice(written, "on-conflict")
}

pub(super) fn probe(written: Option<Written>) -> Result<Probing, ConfigError> {
    choice(written, "probe")
}

pub(super) fn prefix(written: Option<Written>) -> Result<String, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(DEFAULT_PREFIX.to_owned());
    };
    if !value.starts_with('/') || value.ends_with('/') {
        return Err(ConfigError::at(
            &place,
            format!(
                "prefix `{value}`: it must start with a slash and not end with one, as {DEFAULT_PREFIX} does"
            ),
        ));
    }
    Ok(value)
}

pub(super) fn endpoints(
    written: Vec<Written>,
    has_tls: bool,
    interfaces: &[Checked],
) -> Result<Vec<String>, ConfigError> {
    if written.is_empty() {
        return Err(ConfigError::at(
            &Place::Key("etcd.endpoints"),
            "there is none; give at least one, such as http://10.0.0.11:2379",
        ));
    }
    written
        .into_iter()
        .map(|Written { value, place }| {
            let wrong = |why: String| Err(ConfigError::at(&place, format!("endpoint `{value}`: {why}")));
            let Some((scheme, host)) = split_endpoint(&value) else {
                return wrong("write http://HOST:PORT or https://HOST:PORT".to_owned());
            };
            match (scheme, has_tls) {
                ("http", true) => return wrong("`etcd.tls` is given, so write https".to_owned()),
                ("https", false) => {
                    return wrong("https needs `etcd.tls` with the `ca` that signed the servers' certificates".to_owned());
                }
                _ => {}
            }
            // An IPv4-mapped host is the same machine as the address in it.
            let literal = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
            let is_vip = |vip: &&Written<VipConfig>| literal == Ok(vip.value.ip);
            if let Some(vip) = interfaces.iter().flat_map(|one| &one.vips).find(is_vip) {
                return wrong(format!(
                    "{} is a shared IP of this very agent, which needs etcd first; name a member's own address",
                    vip.value.ip
                ));
            }
            Ok(value)
        })
        .collect()
}

pub(super) fn tls(
    (ca, cert, key): (Written, Option<Written>, Option<Written>),
) -> Result<Tls, ConfigError> {
    pem(&ca, PemKind::Certificate)?;
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => {
            pem(&cert, PemKind::Certificate)?;
            pem(&key, PemKind::Key)?;
            Some(Identity {
                cert: cert.value.into(),
                key: key.value.into(),
            })
        }
        (None, None) => None,
        (Some(lone), None) | (None, Some(lone)) => {
            let why = "etcd.tls: `cert` and `key` go together; give both or neither";
            return Err(ConfigError::at(&lone.place, why));
        }
    };
    Ok(Tls {
        ca: ca.value.into(),
        identity,
    })
}

pub(super) fn user([name, password_file]: [Written; 2]) -> Result<User, ConfigError> {
    if name.value.is_empty() {
        return Err(ConfigError::at(&name.place, "etcd.user.name is empty"));
    }
    readable(&password_file)?;
    Ok(User {
        name: name.value,
        password_file: password_file.value.into(),
    })
}

pub(super) fn ttl(
    written: Option<Written>,
    interfaces: &[Checked],
) -> Result<Duration, ConfigError> {
    let (ttl, place) = match written {
        None => (DEFAULT_TTL, Place::Key("lease.ttl")),
        Some(Written { value, place }) => {
            let wrong = |why: &str| ConfigError::at(&place, format!("lease.ttl `{value}`: {why}"));
            let ttl = humantime::parse_duration(&value)
                .map_err(|_| wrong("write a time with its unit, such as 3s"))?;
            if ttl < SHORTEST_TTL {
                return Err(wrong(
                    "etcd grants 2s at least (one and a half of its election timeout); write 2s or more",
                ));
            }
            if ttl.subsec_nanos() != 0 {
                return Err(wrong("etcd counts whole seconds; write such as 2s or 3s"));
            }
            if ttl > LONGEST_TTL {
                return Err(wrong(
                    "it is over an hour; so long would a shared IP be nobody's after its owner died",
                ));
            }
            (ttl, place)
        }
    };
    let unfenced = interfaces
        .iter()
        .find(|one| one.dataplane == DataplaneMode::Kernel);
    if let Some(one) = unfenced.filter(|_| ttl < SHORTEST_TTL_WITHOUT_GATE) {
        return Err(ConfigError::at(
            &place,
            format!(
                "lease.ttl `{}`: interface {} has `dataplane: kernel`, which needs at least 3s",
                humantime::format_duration(ttl),
                one.name.value
            ),
        ));
    }
    Ok(ttl)
}

pub(super) fn state_dir(written: Option<Written<PathBuf>>) -> Result<PathBuf, ConfigError> {
    directory(written, "state-dir", DEFAULT_STATE_DIR).map(|(path, _)| path)
}

pub(super) fn bpf_dir(written: Option<Written<PathBuf>>) -> Result<PathBuf, ConfigError> {
    let (path, place) = directory(written, "bpf-dir", DEFAULT_BPF_DIR)?;
    check_bpf_dir(&path)
        .map_err(|why| ConfigError::at(&place, format!("bpf-dir `{}`: {why}", path.display())))?;
    Ok(path)
}

/// Refuses the root of a file system: what other programs pinned there would go with our pins.
pub fn check_bpf_dir(path: &Path) -> Result<(), &'static str> {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    match path.parent() {
        Some(parent) if device(path).is_none() || device(path) == device(parent) => Ok(()),
        _ => Err(
            "other programs have their pins there too; give a directory below it, such as \
             /sys/fs/bpf/vip-agent",
        ),
    }
}

/// No interface and no shared IP twice, and one priority for what moves as one.
pub(super) fn unlike(interfaces: Vec<Checked>) -> Result<Vec<InterfaceConfig>, ConfigError> {
    if interfaces.is_empty() {
        return Err(ConfigError::at(
            &Place::Key("interfaces"),
            "there is none; give at least one with a shared IP, or --interface and --vip",
        ));
    }
    let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut vips: BTreeMap<IpAddr, &Place> = BTreeMap::new();
    for one in &interfaces {
        if let Some(first) = names.insert(&one.name.value, &one.name.place) {
            let message = format!(
                "interface {} is given twice, first at {first}; put its shared IPs together in `vips`",
                one.name.value
            );
            return Err(ConfigError::at(&one.name.place, message));
        }
        for vip in &one.vips {
            if let Some(first) = vips.insert(vip.value.ip, &vip.place) {
                let message = format!(
                    "vip {} is given twice, first at {first}; leave one of them",
                    vip.value.ip
                );
                return Err(ConfigError::at(&vip.place, message));
            }
        }
    }
    placement::agree_in_groups(interfaces.iter().flat_map(|one| &one.vips))?;
    refuse_checks_of(&vips, interfaces.iter().flat_map(|one| &one.checks))?;
    Ok(interfaces
        .into_iter()
        .map(|one| InterfaceConfig {
            name: one.name.value,
            dataplane: one.dataplane,
            probe: one.probe,
            vips: one.vips.into_iter().map(|vip| vip.value).collect(),
        })
        .collect())
}

/// What only the owner could pass.
fn refuse_checks_of<'a>(
    vips: &BTreeMap<IpAddr, &Place>,
    mut checks: impl Iterator<Item = &'a Written<CheckConfig>>,
) -> Result<(), ConfigError> {
    let literal =
        |check: &CheckConfig| Some(check::host(check)?.parse::<IpAddr>().ok()?.to_canonical());
    let vip = |check: &CheckConfig| literal(check).filter(|ip| vips.contains_key(ip));
    match checks.find_map(|check| Some((check, vip(&check.value)?))) {
        Some((check, vip)) => Err(ConfigError::at(
            &check.place,
            format!(
                "health check `{}`: {vip} is a shared IP, which its owner alone reaches here, so no other node could be \
                 fit; name an address of this machine's own",
                check.value
            ),
        )),
        None => Ok(()),
    }
}

/// `of_interface`: the checks of all its shared IPs.
fn vip(
    written: WrittenVip,
    of_interface: &[Written<CheckConfig>],
) -> Result<Written<VipConfig>, ConfigError> {
    let Written { value: ip, place } = address(written.ip)?;
    let health = of_interface.iter().chain(&written.health);
    let value = VipConfig {
        ip,
        priority: placement::priority(written.priority)?,
        group: placement::group(written.group)?,
        health: health.map(|check| check.value.clone()).collect(),
    };
    Ok(Written { value, place })
}

fn address(Written { value, place }: Written) -> Result<Written<IpAddr>, ConfigError> {
    let wrong = |why: &str| Err(ConfigError::at(&place, format!("vip `{value}`: {why}")));
    let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let ip = match value.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) if value.parse::<IpNet>().is_ok() => {
            return wrong("write the plain address, without a prefix length");
        }
        Err(_) => {
            return match value.split_once('%') {
                Some((ip, zone)) if is_ipv6(ip) => wrong(&format!(
                    "write the plain address, without `%{zone}`; its interface is the one that `interface` names"
                )),
                _ if is_ipv6(value.trim_matches(['[', ']'])) => {
                    wrong("write the plain address, without brackets")
                }
                _ => wrong("this is no IP address; write such as 192.168.0.15 or fd00::15"),
            };
        }
    };
    let kind = match ip {
        IpAddr::V4(ip) => unfit_ipv4(ip).map(str::to_owned),
        IpAddr::V6(ip) => unfit_ipv6(ip),
    };
    match kind {
        None => Ok(Written { value: ip, place }),
        Some(kind) => wrong(&format!(
            "this is {kind}; give a free host address of the interface's network"
        )),
    }
}

fn unfit_ipv4(ip: Ipv4Addr) -> Option<&'static str> {
    Some(match ip.octets() {
        [0, ..] => "of \"this network\" (0.0.0.0/8)",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "reserved (240.0.0.0/4)",
        _ if ip.is_multicast() => "a multicast address",
        _ if ip.is_loopback() => "a loopback address",
        _ => return None,
    })
}

/// RFC 4291 §2.4 and §2.5. Link-local addresses may be shared.
fn unfit_ipv6(ip: Ipv6Addr) -> Option<String> {
    let kind = match ip.segments() {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_loopback() => "the loopback address",
        _ if ip.is_multicast() => "a multicast address",
        [0, 0, 0, 0, 0, 0xffff, high, low] => {
            let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
            let ipv4 = Ipv4Addr::new(a, b, c, d);
            return Some(format!("IPv4 in the guise of IPv6, to be written {ipv4}"));
        }
        [0, 0, 0, 0, 0, 0, ..] => "IPv4-compatible (::/96), which is no longer used",
        _ => return None,
    };
    Some(kind.to_owned())
}

/// What a shared IP is in the network of `own` that no host may be.
fn not_a_host(vip: IpAddr, own: &IpNet) -> Option<&'static str> {
    match (vip, own) {
        // Of a /31 or /32 every address is a host's (RFC 3021).
        (IpAddr::V4(_), IpNet::V4(own)) if own.prefix_len() > 30 => None,
        (IpAddr::V4(vip), IpNet::V4(own)) if vip == own.network() => Some("network"),
        (IpAddr::V4(vip), IpNet::V4(own)) if vip == own.broadcast() => Some("broadcast"),
        // RFC 4291 §2.6.1; a /127 has none (RFC 6164 §5).
        (IpAddr::V6(_), IpNet::V6(own)) if own.prefix_len() > 126 => None,
        (IpAddr::V6(vip), IpNet::V6(own)) if vip == own.network() => Some("Subnet-Router anycast"),
        _ => None,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// A daemon's directory does not depend on where it was started from.
fn directory(
    written: Option<Written<PathBuf>>,
    key: &'static str,
    default: &str,
) -> Result<(PathBuf, Place), ConfigError> {
    match written {
        None => Ok((default.into(), Place::Key(key))),
        Some(Written { value, place }) if value.is_absolute() => Ok((value, place)),
        Some(Written { value, place }) => Err(ConfigError::at(
            &place,
            format!(
                "{key} `{}`: write the whole path, such as {default}",
                value.display()
            ),
        )),
    }
}

pub(super) fn choice<T: clap::ValueEnum + Default>(
    written: Option<Written>,
    key: &str,
) -> Result<T, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(T::default());
    };
    T::from_str(&value, false).map_err(|_| {
        let choices: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|choice| Some(choice.to_possible_value()?.get_name().to_owned()))
            .collect();
        ConfigError::at(
            &place,
            format!("{key} `{value}`: write {}", choices.join(", ")),
        )
    })
}

impl PemKind {
    /// Whether `content` is of the kind; what the bytes in it say shows when it is used.
    pub fn check(self, content: &[u8]) -> Result<(), &'static str> {
        let (label, why) = match self {
            Self::Certificate => (
                &b"-----BEGIN CERTIFICATE-----"[..],
                "holds no certificate in PEM",
            ),
            Self::Key => (&b"PRIVATE KEY-----"[..], "holds no private key in PEM"),
        };
        let holds = content.windows(label.len()).any(|window| window == label);
        holds.then_some(()).ok_or(why)
    }
}

pub(super) fn pem(file: &Written, kind: PemKind) -> Result<(), ConfigError> {
    readable(file)?;
    let content = fs::read(&file.value).unwrap_or_default();
    kind.check(&content)
        .map_err(|why| ConfigError::at(&file.place, format!("`{}` {why}", file.value)))
}

fn readable(file: &Written) -> Result<(), ConfigError> {
    // A directory opens too; only to read it fails.
    let opened = File::open(&file.value).and_then(|opened| opened.metadata());
    let why = match opened {
        Ok(metadata) if metadata.is_dir() => "it is a directory".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(ConfigError::at(
        &file.place,
        format!("`{}` cannot be read: {why}", file.value),
    ))
}

/// Scheme and host of `http(s)://HOST:PORT`; an IPv6 host comes without its brackets.
fn split_endpoint(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, port) = split_host(rest.strip_suffix('/').unwrap_or(rest))?;
    (matches!(scheme, "http" | "https") && port.is_some()).then_some((scheme, host))
}

/// `HOST` or `HOST:PORT`; an IPv6 host comes without its brackets, which it must have.
pub(super) fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return None;
            }
            (host, port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if host.is_empty() || !host.chars().all(fits) {
                return None;
            }
            (host, port)
        }
    };
    let Some(port) = port else {
        return Some((host, None));
    };
    // `parse` alone would take a sign.
    let is_port = port.chars().all(|c| c.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_port && *port > 0)?;
    Some((host, Some(port)))
}
