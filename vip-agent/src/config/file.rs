//! The file, as it is written. What its values mean is for `validate` to say.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use super::error::{ConfigError, Place};

/// A string or number with its place: a YAML scalar may look like either.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileConfig {
    pub node: Option<Text>,
    pub etcd: Option<FileEtcd>,
    pub lease: Option<FileLease>,
    pub on_stop: Option<Text>,
    #[serde(default)]
    pub interfaces: Vec<FileInterface>,
    pub state_dir: Option<Text>,
    pub bpf_dir: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileEtcd {
    #[serde(default)]
    pub endpoints: Vec<Text>,
    pub prefix: Option<Text>,
    pub tls: Option<FileTls>,
    pub user: Option<FileUser>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileTls {
    pub ca: Text,
    pub cert: Option<Text>,
    pub key: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileUser {
    pub name: Text,
    pub password_file: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileLease {
    pub ttl: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileInterface {
    pub interface: Text,
    pub dataplane: Option<Text>,
    pub vip: Option<FileVip>,
    pub vips: Option<Vec<FileVip>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileVip {
    pub ip: Text,
}

/// Reads and parses a file.
pub(super) fn read(path: &Path) -> Result<FileConfig, ConfigError> {
    let unreadable =
        |why: String| ConfigError::new(format!("{} cannot be read: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into()))?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<FileConfig, ConfigError> {
    if text.trim().is_empty() {
        return Ok(FileConfig::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let Some(at) = error.location() else {
            return ConfigError::new(format!("{}: {}", path.display(), plain(error)));
        };
        let place = |line, column| Place::File(path.to_owned(), line, column);
        let what = plain(error);
        if what.contains("tab")
            && let Some(line) = indented_by_a_tab(text)
        {
            let why = "a tab indents this line, which YAML does not allow; use blanks";
            return ConfigError::at(&place(line, 1), why);
        }
        let (line, column) = (to_usize(at.line()), to_usize(at.column()));
        let key = match error {
            Error::Unexpected { .. } => key_of(text, line, column),
            _ => None,
        };
        let right = key
            .and_then(example)
            .map(|right| format!("; write `{right}`"));
        // What was expected does not say instead of what; the line itself does.
        let line = line.checked_sub(1).and_then(|line| text.lines().nth(line));
        let what = match (error, line.map(str::trim)) {
            (Error::SerdeUnknownField { .. }, _) | (_, None) => what,
            (_, Some(line)) => format!("{what}, in `{line}`{}", right.unwrap_or_default()),
        };
        ConfigError::at(&place(at.line(), at.column()), what)
    })
}

/// The place of a value in the file.
pub(super) fn place<T>(path: &Path, value: &Spanned<T>) -> Place {
    Place::File(
        path.to_owned(),
        value.referenced.line(),
        value.referenced.column(),
    )
}

/// What the parser found, in the words of the file and not of the parser.
fn plain(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let meant = meant(field, expected)
                .map(|meant| format!("{meant} "))
                .unwrap_or_default();
            format!(
                "unknown key `{field}`; {meant}known here: {}",
                expected.join(", ")
            )
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or_default();
            format!("the key `{key}` is given twice; leave one of them")
        }
        Error::NullIntoString { .. } => "the value is missing".to_owned(),
        Error::Unexpected { expected, .. } => {
            let expected = match *expected {
                "mapping start" => "`key: value` pairs",
                "sequence start" => "a list, such as [a, b]",
                "string scalar" => "a single value",
                other => other,
            };
            format!("expected {expected}")
        }
        other => {
            // The first line says what is wrong; the others draw the place, which we name.
            let text = other.to_string();
            let what = text.lines().next().unwrap_or_default();
            let what = what.split(" at line ").next().unwrap_or(what);
            let what = what
                .trim_start_matches("error: ")
                .trim_end_matches([':', ' ']);
            match what {
                _ if what.starts_with("multiple YAML documents") => {
                    "a second document begins here, after `---`; write one".to_owned()
                }
                _ if what.contains("quoted scalar") => {
                    format!("{what} (a quotation mark may be left open above)")
                }
                _ if what.contains("did not find expected") || what.contains("indentation") => {
                    format!("{what} (keys that belong together begin in one column)")
                }
                _ => what.to_owned(),
            }
        }
    }
}

/// What `field` was most likely meant to be, or where it belongs.
fn meant(field: &str, expected: &[&str]) -> Option<String> {
    let home = match field {
        "endpoints" | "prefix" | "tls" => Some("etcd"),
        "ca" | "cert" | "key" => Some("etcd.tls"),
        "password-file" => Some("etcd.user"),
        "ttl" => Some("lease"),
        "interface" | "dataplane" | "vip" | "vips" => Some("interfaces"),
        "ip" => Some("vip"),
        "node" | "lease" | "on-stop" | "state-dir" | "bpf-dir" => Some("the top"),
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
fn example(key: &str) -> Option<&'static str> {
    Some(match key {
        "etcd" => "etcd: { endpoints: [http://10.0.0.11:2379] }",
        "endpoints" => "endpoints: [http://10.0.0.11:2379]",
        "tls" => "tls: { ca: FILE, cert: FILE, key: FILE }",
        "user" => "user: { name: NAME, password-file: FILE }",
        "lease" => "lease: { ttl: 3s }",
        "interfaces" => "interfaces: [{ interface: eth0, vip: { ip: 10.0.0.100 } }]",
        "vip" => "vip: { ip: 10.0.0.100 }",
        "vips" => "vips: [{ ip: 10.0.0.100 }, { ip: 10.0.0.101 }]",
        _ => return None,
    })
}

/// The key whose value stands at, or begins at, a place (both from 1): the last one before it on
/// its line, or else the one that the line is indented under.
fn key_of(text: &str, line: usize, column: usize) -> Option<&str> {
    let before: Vec<&str> = text.lines().take(line).collect();
    let (last, above) = before.split_last()?;
    let cut = last.char_indices().nth(column.checked_sub(1)?);
    let prefix = &last[..cut.map_or(last.len(), |(at, _)| at)];
    if let Some((key, _)) = prefix.rsplit_once(':') {
        return key.rsplit([' ', '{', '-', '[', ',']).next();
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

/// The first such line, from 1.
fn indented_by_a_tab(text: &str) -> Option<u64> {
    let blank = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines();
    let at = lines.position(|line| line[..blank(line)].contains('\t'))?;
    u64::try_from(at + 1).ok()
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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
