//! Finds programs, and the right to be root.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a program is: first in PATH, then where Debian puts root's, which an ordinary user's PATH leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(program))
        .find(|file| is_program(file))
}

/// Whether the file is there and may be run by somebody.
pub fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// How to become root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// This process is.
    Already,
    /// Through sudo.
    Sudo,
    /// Not at all.
    No,
}

impl Root {
    /// What this process and machine offer.
    pub fn here() -> Root {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if effective_uid(&status) == Some(0) {
            Root::Already
        } else if find("sudo").is_some() {
            Root::Sudo
        } else {
            Root::No
        }
    }

    /// The program as a command that runs as root; the variables get there even if sudo keeps no environment.
    pub fn command(self, program: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = match self {
            Root::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg("env").args(
                    variables
                        .iter()
                        .map(|(name, value)| format!("{name}={value}")),
                );
                sudo.arg(program);
                sudo
            }
            Root::Already | Root::No => Command::new(program),
        };
        command.envs(variables.iter().copied());
        command
    }
}

/// The effective user id in the text of /proc/<pid>/status (proc(5): real, effective, saved, file system).
fn effective_uid(status: &str) -> Option<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(
            effective_uid("Name:\txtask\nUid:\t1000\t0\t1000\t1000\n"),
            Some(0)
        );
        assert_eq!(effective_uid("Uid:\t1000\t1000\t1000\t1000\n"), Some(1000));
        assert_eq!(effective_uid("Name:\txtask\n"), None);
    }

    #[test]
    fn programs_are_found_and_folders_are_none() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
        assert!(!is_program(Path::new("/usr")));
    }

    #[test]
    fn sudo_is_handed_the_variables() {
        let command = Root::Sudo.command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")]);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "sudo");
        assert_eq!(
            arguments,
            ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        );
    }
}
