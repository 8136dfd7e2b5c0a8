//! What is wrong with a configuration, and where.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file: its path, line and column, from 1.
    File(PathBuf, u64, u64),
    /// On the command line.
    Flag(&'static str),
    /// Nowhere in this file: this key is missing there.
    Missing(PathBuf, &'static str),
    /// Nowhere: this key of the configuration has its default, or is missing.
    Key(&'static str),
}

/// One thing that is wrong: the place, then what is wrong with what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    place: Option<Place>,
    message: String,
}

impl ConfigError {
    /// At a place that is known.
    pub fn at(place: &Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place.clone()),
            message: message.into(),
        }
    }

    /// The same, where the keys that are missing would stand in a file.
    pub(super) fn in_file(self, path: &Path) -> Self {
        match self.place {
            Some(Place::Key(key)) => Self {
                place: Some(Place::Missing(path.to_owned(), key)),
                ..self
            },
            _ => self,
        }
    }

    /// Where the message says all.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            place: None,
            message: message.into(),
        }
    }
}

/// `text` with its control characters escaped: a value may hold line ends, or what drives a
/// terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Self::Missing(path, key) => write!(f, "{}: {key}", path.display()),
            Self::Flag(name) | Self::Key(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&one_line(&self.message))
    }
}

impl std::error::Error for ConfigError {}
