//! Runs other programs, from the repository's root, and says which one failed and how.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Why xtask ends early: its exit code and the line for stderr.
#[derive(Debug, PartialEq)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// A failure of xtask's own, exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            code: 1,
            message: message.into(),
        }
    }
}

/// Announces the step in one line and runs it to its end; its exit code becomes that of the [`Failure`].
pub fn step(name: &str, command: &mut Command) -> Result<(), Failure> {
    let line = line(command);
    println!("{name}: {line}");
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("{name} failed: cannot run `{line}`: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure {
        code: code(status),
        message: format!("{name} failed ({status}): {line}"),
    })
}

/// As [`step`] for a build by cargo; returns the programs that it made.
pub fn executables(name: &str, cargo: &mut Command) -> Result<Vec<PathBuf>, Failure> {
    let line = line(cargo);
    println!("{name}: {line}");
    let output = cargo
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("{name} failed: cannot run `{line}`: {error}")))?;
    if !output.status.success() {
        return Err(Failure {
            code: code(output.status),
            message: format!("{name} failed ({}): {line}", output.status),
        });
    }
    let told = String::from_utf8_lossy(&output.stdout);
    Ok(told.lines().filter_map(executable).collect())
}

/// The program in a message of cargo's, if it is about one. A path with a quote or a backslash would be escaped there.
fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    Some(PathBuf::from(rest.split('"').next()?))
}

/// The standard output of a short question to a program, trimmed; `None` if it cannot be run or fails.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The cargo that runs this xtask, in the repository's root and with [`target`] as its target directory.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // `cargo run` tells us about the package xtask. Handed on, that makes build scripts that watch such a variable
    // (ring's, for one) run again whenever cargo is called once with and once without xtask.
    for (name, _) in env::vars_os() {
        if describes_xtask(&name) {
            command.env_remove(name);
        }
    }
    // The agent's and the demo's binaries are looked for below `target`.
    command
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TARGET_DIR", target());
    command
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder in the repository")
}

/// The target directory of everything that xtask builds.
pub fn target() -> PathBuf {
    root().join("target")
}

fn describes_xtask(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(
            name,
            "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
        )
}

fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![
        program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// As a shell would say it: 128 + the signal for a process that died of one.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_and_keeps_its_code() {
        let failure =
            step("probe", Command::new("sh").args(["-c", "exit 7"])).expect_err("it exits with 7");
        assert_eq!(
            failure,
            Failure {
                code: 7,
                message: "probe failed (exit status: 7): sh -c exit 7".to_owned()
            }
        );
    }

    #[test]
    fn a_signal_becomes_a_shells_exit_code() {
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(101 << 8)), 101);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure =
            step("probe", &mut Command::new("/no/such/program")).expect_err("it is not there");
        assert_eq!(failure.code, 1);
        assert!(
            failure
                .message
                .starts_with("probe failed: cannot run `program`: "),
            "{}",
            failure.message
        );
    }

    #[test]
    fn a_program_is_found_in_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","filenames":["/t/a-1"],"executable":"/t/a-1","fresh":true}"#;
        assert_eq!(executable(message), Some(PathBuf::from("/t/a-1")));
        assert_eq!(executable(r#"{"executable":null,"fresh":true}"#), None);
    }

    #[test]
    fn only_what_cargo_run_set_is_taken_away() {
        assert!(describes_xtask(OsStr::new("CARGO_PKG_NAME")));
        assert!(describes_xtask(OsStr::new("CARGO_MANIFEST_DIR")));
        assert!(!describes_xtask(OsStr::new("CARGO_HOME")));
        assert!(!describes_xtask(OsStr::new("CARGO_TERM_COLOR")));
    }
}
