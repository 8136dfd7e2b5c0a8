//! Health checks: what is written of them, and what can't be.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_saphyr::Spanned;

use super::{
    ConfigError, PemKind, Place, Written,
    file::{self, FileCheck, Text},
    hooks::check_program,
    validate::{pem, split_host},
};

/// One health check. Those that are equal are one, however many shared IPs have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckConfig {
    /// What is tried.
    pub target: Target,
    /// From one start to the next.
    pub interval: Duration,
    /// How long it may take; not over `interval`.
    pub timeout: Duration,
    /// So many successes in a row end a failure, at least 1.
    pub rise: u8,
    /// So many failures in a row make one, at least 1.
    pub fall: u8,
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Somebody accepts connections there.
    Tcp {
        /// A name or an address; that of IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A server answers a GET.
    Http {
        /// `http(s)://HOST[:PORT][/PATH][?QUERY]`.
        url: String,
        /// Who signed the server's certificate; for https, and for that always.
        ca: Option<PathBuf>,
        /// The one status that is good; none: any of 200 to 299.
        status: Option<u16>,
    },
    /// A program ends with exit code 0.
    Exec(Vec<String>),
}

impl CheckConfig {
    /// Of whose times and counts nothing is said.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            interval: DEFAULT_TIME,
            timeout: DEFAULT_TIME,
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
        }
    }
}

/// As people and other nodes read it: the kind, and what is tried.
impl fmt::Display for CheckConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tcp { host, port } if host.contains(':') => write!(f, "tcp [{host}]:{port}"),
            Target::Tcp { host, port } => write!(f, "tcp {host}:{port}"),
            Target::Http { url, .. } => write!(f, "http {url}"),
            Target::Exec(words) => write!(f, "exec {}", super::one_line(&words.join(" "))),
        }
    }
}

const DEFAULT_TIME: Duration = Duration::from_secs(1);
const DEFAULT_RISE: u8 = 2;
const DEFAULT_FALL: u8 = 3;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const MOST_IN_A_ROW: u8 = 100;

/// The checks of one `health:`.
pub(super) fn checks(
    path: &Path,
    written: Option<Vec<Spanned<FileCheck>>>,
) -> Result<Vec<Written<CheckConfig>>, ConfigError> {
    let check = |one: Spanned<FileCheck>| {
        let place = file::place(path, &one);
        let value = check(path, &place, one.value)?;
        Ok(Written { value, place })
    };
    written
        .unwrap_or_default()
        .into_iter()
        .map(check)
        .collect::<Result<_, _>>()
}

/// The host that it goes to, if it goes to one.
pub(super) fn host(check: &CheckConfig) -> Option<&str> {
    match &check.target {
        Target::Tcp { host, .. } => Some(host),
        Target::Http { url, .. } => split_url(url).map(|(_, host)| host),
        Target::Exec(_) => None,
    }
}

fn check(path: &Path, place: &Place, check: FileCheck) -> Result<CheckConfig, ConfigError> {
    let written = |text: Text| Written {
        place: file::place(path, &text),
        value: text.value,
    };
    let wrong = |why: &str| Err(ConfigError::at(place, format!("health check: {why}")));
    if check.http.is_none()
        && let Some(lone) = check.ca.as_ref().or(check.status.as_ref())
    {
        return Err(ConfigError::at(
            &file::place(path, lone),
            "health check: `ca` and `status` go with `http`",
        ));
    }
    let target = match (check.tcp, check.http, check.exec) {
        (Some(text), None, None) => tcp(&written(text))?,
        (None, Some(url), None) => http(
            &written(url),
            check.ca.map(written),
            check.status.map(written),
        )?,
        (None, None, Some(words)) => exec(place, words.into_iter().map(written).collect())?,
        (None, None, None) => {
            return wrong(
                "it does not say what to try; give one of `tcp: HOST:PORT`, `http: URL`, `exec: [/PROGRAM, …]`",
            );
        }
        _ => {
            return wrong(
                "`tcp`, `http` and `exec` are a check each; write `- ` before each of them",
            );
        }
    };
    let interval = match check.interval.map(written) {
        Some(text) => interval(&text)?,
        None => DEFAULT_TIME,
    };
    let timeout = match check.timeout.map(written) {
        Some(text) => timeout(&text, interval)?,
        None => DEFAULT_TIME.min(interval),
    };
    Ok(CheckConfig {
        target,
        interval,
        timeout,
        rise: in_a_row("rise", check.rise.map(written), DEFAULT_RISE)?,
        fall: in_a_row("fall", check.fall.map(written), DEFAULT_FALL)?,
    })
}

fn tcp(Written { value, place }: &Written) -> Result<Target, ConfigError> {
    match split_host(value) {
        Some((host, Some(port))) => Ok(Target::Tcp {
            host: host.to_owned(),
            port,
        }),
        _ => Err(ConfigError::at(
            place,
            format!("tcp `{value}`: write HOST:PORT, such as 127.0.0.1:6443 or [::1]:6443"),
        )),
    }
}

fn http(
    Written { value: url, place }: &Written,
    ca: Option<Written>,
    status: Option<Written>,
) -> Result<Target, ConfigError> {
    let wrong = |why: &str| Err(ConfigError::at(place, format!("http `{url}`: {why}")));
    if url.contains('@') {
        return wrong("a user in it is not sent; leave that away");
    }
    let Some((scheme, _)) = split_url(url).filter(|_| url.parse::<hyper::Uri>().is_ok()) else {
        return wrong("write http://HOST:PORT/PATH or https://HOST:PORT/PATH");
    };
    match (scheme, &ca) {
        ("https", None) => {
            return wrong("https needs `ca`, a file with who signed the server's certificate");
        }
        ("http", Some(ca)) => {
            let why = format!(
                "ca `{}`: `http` is without TLS; write https, or leave `ca` away",
                ca.value
            );
            return Err(ConfigError::at(&ca.place, why));
        }
        _ => {}
    }
    if let Some(ca) = &ca {
        pem(ca, PemKind::Certificate)?;
    }
    Ok(Target::Http {
        url: url.clone(),
        ca: ca.map(|ca| ca.value.into()),
        status: status.map(|text| self::status(&text)).transpose()?,
    })
}

/// What is below 200 is never a server's last word (RFC 9110 §15.2).
fn status(Written { value, place }: &Written) -> Result<u16, ConfigError> {
    number(value)
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| {
            let why = format!(
                "status `{value}`: write one of 200 to 599; without it 200 to 299 are good"
            );
            ConfigError::at(place, why)
        })
}

fn exec(place: &Place, words: Vec<Written>) -> Result<Target, ConfigError> {
    let Some(program) = words.first() else {
        let why = "exec: it names no program; write exec: [/PROGRAM, ARGUMENT, …]";
        return Err(ConfigError::at(place, why));
    };
    check_program(&program.value).map_err(|why| {
        let why = format!("exec `{}`: {why}", program.value);
        ConfigError::at(&program.place, why)
    })?;
    if let Some(word) = words.iter().find(|word| word.value.contains('\0')) {
        let why = "exec: a zero byte can be in no argument";
        return Err(ConfigError::at(&word.place, why));
    }
    Ok(Target::Exec(
        words.into_iter().map(|word| word.value).collect(),
    ))
}

fn interval(text: &Written) -> Result<Duration, ConfigError> {
    let interval = time("interval", text)?;
    if interval < SHORTEST_INTERVAL || interval > LONGEST_INTERVAL {
        return Err(ConfigError::at(
            &text.place,
            format!("interval `{}`: write 100ms to 1h", text.value),
        ));
    }
    Ok(interval)
}

fn timeout(text: &Written, interval: Duration) -> Result<Duration, ConfigError> {
    let wrong = |why: String| {
        Err(ConfigError::at(
            &text.place,
            format!("timeout `{}`: {why}", text.value),
        ))
    };
    let timeout = time("timeout", text)?;
    if timeout < SHORTEST_TIMEOUT {
        return wrong("write 10ms or more".to_owned());
    }
    if timeout > interval {
        return wrong(format!(
            "it is over the interval of {0}, at whose end the next one starts; write {0} or less, or give a longer \
             `interval`",
            humantime::format_duration(interval)
        ));
    }
    Ok(timeout)
}

fn time(key: &str, Written { value, place }: &Written) -> Result<Duration, ConfigError> {
    humantime::parse_duration(value).map_err(|_| {
        let why = format!("{key} `{value}`: write a time with its unit, such as 1s or 500ms");
        ConfigError::at(place, why)
    })
}

fn in_a_row(key: &str, written: Option<Written>, default: u8) -> Result<u8, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(default);
    };
    number(&value)
        .filter(|count| (1..=MOST_IN_A_ROW).contains(count))
        .ok_or_else(|| {
            let why = format!("{key} `{value}`: write how many in a row, 1 to {MOST_IN_A_ROW}");
            ConfigError::at(&place, why)
        })
}

/// `parse` alone would take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_number = text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// Scheme and host; an IPv6 host comes without its brackets.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, _) = split_host(&rest[..end])?;
    let fits = |c: char| c.is_ascii_graphic() && c != '#';
    (matches!(scheme, "http" | "https") && rest[end..].chars().all(fits)).then_some((scheme, host))
}

#[cfg(test)]
mod tests;
