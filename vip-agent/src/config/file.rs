//! The file, as it is written. What its values mean is for `validate` to say.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_saphyr::Spanned;

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
        let place = error
            .location()
            .map(|at| Place::File(path.to_owned(), at.line(), at.column()));
        // The first line says what is wrong; the others draw the place, which we name.
        let plain = error.without_snippet().to_string();
        let what = plain.lines().next().unwrap_or_default();
        let what = what.split(" at line ").next().unwrap_or(what);
        let what = what
            .trim_start_matches("error: ")
            .trim_end_matches([':', ' '])
            .to_owned();
        // Of what it expected it does not say where; the line itself does.
        let line = error
            .location()
            .and_then(|at| text.lines().nth(usize::try_from(at.line()).ok()? - 1));
        let what = match line.map(str::trim) {
            Some(line) if !what.starts_with("unknown field") => format!("{what}, in `{line}`"),
            _ => what,
        };
        match place {
            Some(place) => ConfigError::at(&place, what),
            None => ConfigError::new(format!("{}: {what}", path.display())),
        }
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
