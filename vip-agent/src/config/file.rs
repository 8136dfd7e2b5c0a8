//! The file, as it is written. What its values mean is for `validate` to say.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use super::{
    error::{ConfigError, Place},
    hints::{example, key_of, meant},
};

/// A string or number with its place: a YAML scalar may look like either.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileConfig {
    pub node: Option<Text>,
    pub etcd: Option<FileEtcd>,
    pub lease: Option<FileLease>,
    pub on_stop: Option<Text>,
    pub on_conflict: Option<Text>,
    pub preempt: Option<Text>,
    pub rebalance: Option<Text>,
    pub when_all_unfit: Option<Text>,
    pub hooks: Option<FileHooks>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileHooks {
    pub become_owner: Option<Spanned<Vec<Text>>>,
    pub become_follower: Option<Spanned<Vec<Text>>>,
    pub conflict: Option<Spanned<Vec<Text>>>,
    pub timeout: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileInterface {
    pub interface: Text,
    pub dataplane: Option<Text>,
    pub probe: Option<Text>,
    pub health: Option<Vec<Spanned<FileCheck>>>,
    pub vip: Option<FileVip>,
    pub vips: Option<Vec<FileVip>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileVip {
    pub ip: Text,
    pub priority: Option<Text>,
    pub group: Option<Text>,
    pub health: Option<Vec<Spanned<FileCheck>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileCheck {
    pub tcp: Option<Text>,
    pub http: Option<Text>,
    pub exec: Option<Vec<Text>>,
    pub ca: Option<Text>,
    pub status: Option<Text>,
    pub interval: Option<Text>,
    pub timeout: Option<Text>,
    pub rise: Option<Text>,
    pub fall: Option<Text>,
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
