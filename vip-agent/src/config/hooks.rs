//! Commands that are run when something happens.

use std::{fs, path::Path, time::Duration};

use nix::unistd::{AccessFlags, access};

use super::{ConfigError, Place, Written};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
/// What comes later for the same shared IP waits so long.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The commands, each a program's path and its arguments; none is run by a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// A shared IP began to be served here.
    pub become_owner: Option<Vec<String>>,
    /// It no longer is.
    pub become_follower: Option<Vec<String>>,
    /// A machine that is no member claims one.
    pub conflict: Option<Vec<String>>,
    /// How long one may run.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            become_owner: None,
            become_follower: None,
            conflict: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// What was written of them.
pub(super) struct WrittenHooks {
    pub become_owner: Option<Written<Vec<Written>>>,
    pub become_follower: Option<Written<Vec<Written>>>,
    pub conflict: Option<Written<Vec<Written>>>,
    pub timeout: Option<Written>,
}

pub(super) fn hooks(written: Option<WrittenHooks>) -> Result<Hooks, ConfigError> {
    let Some(written) = written else {
        return Ok(Hooks::default());
    };
    Ok(Hooks {
        become_owner: command("become-owner", written.become_owner)?,
        become_follower: command("become-follower", written.become_follower)?,
        conflict: command("conflict", written.conflict)?,
        timeout: timeout(written.timeout)?,
    })
}

fn command(
    key: &str,
    written: Option<Written<Vec<Written>>>,
) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(Written {
        value: words,
        place,
    }) = written
    else {
        return Ok(None);
    };
    let Some(program) = words.first() else {
        let why = format!(
            "hooks.{key}: it is empty; write such as [/usr/local/bin/attach, --fast], or leave it out"
        );
        return Err(ConfigError::at(&place, why));
    };
    let wrong = |place: &Place, word: &str, why: &str| {
        ConfigError::at(place, format!("hooks.{key} `{word}`: {why}"))
    };
    check_program(&program.value).map_err(|why| wrong(&program.place, &program.value, &why))?;
    // The kernel ends a word there.
    if let Some(word) = words.iter().find(|word| word.value.contains('\0')) {
        return Err(wrong(&word.place, &word.value, "take the zero byte out"));
    }
    Ok(Some(words.into_iter().map(|word| word.value).collect()))
}

/// A daemon's `PATH` and directory are not those of who wrote the file.
pub(super) fn check_program(program: &str) -> Result<(), String> {
    const WORDS: &str =
        "; a program and its arguments are words of their own: [/usr/local/bin/attach, --fast]";
    let path = Path::new(program);
    let hint = if program.contains(char::is_whitespace) {
        WORDS
    } else {
        ""
    };
    if !path.is_absolute() {
        let why = "write the program's whole path, such as /usr/local/bin/attach";
        return Err(format!("{why}{hint}"));
    }
    match fs::metadata(path) {
        Err(error) => Err(format!("it cannot be run: {error}{hint}")),
        Ok(metadata) if !metadata.is_file() => Err("it is no file; name a program".to_owned()),
        Ok(_) => access(path, AccessFlags::X_OK)
            .map_err(|_| format!("it is not executable; `chmod +x {program}`")),
    }
}

fn timeout(written: Option<Written>) -> Result<Duration, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(DEFAULT_TIMEOUT);
    };
    let wrong = |why: &str| ConfigError::at(&place, format!("hooks.timeout `{value}`: {why}"));
    let timeout = humantime::parse_duration(&value)
        .map_err(|_| wrong("write a time with its unit, such as 10s"))?;
    if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
        return Err(wrong("write 100ms to 10min"));
    }
    Ok(timeout)
}
