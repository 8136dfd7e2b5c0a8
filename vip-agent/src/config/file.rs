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
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::new(format!("{}: {error}", path.display())))?;
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
        // What was expected does not say instead of what; the line itself does.
        let line = usize::try_from(at.line())
            .ok()
            .and_then(|line| text.lines().nth(line.checked_sub(1)?))
            .map(str::trim);
        let what = match (error, line) {
            (Error::SerdeUnknownField { .. }, _) | (_, None) => plain(error),
            (_, Some(line)) => format!("{}, in `{line}`", plain(error)),
        };
        ConfigError::at(&Place::File(path.to_owned(), at.line(), at.column()), what)
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
            let meant = nearest(field, expected)
                .map(|key| format!("did you mean `{key}`? "))
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
            what.trim_start_matches("error: ")
                .trim_end_matches([':', ' '])
                .to_owned()
        }
    }
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
