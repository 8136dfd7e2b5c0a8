//! A kernel out of Debian's packages, unpacked below target/ and kept there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kernel, failed};
use crate::run::{self, Failure, step};

/// A kernel and its modules.
pub struct Unpacked {
    /// What `uname -r` says there.
    pub release: String,
    pub kernel: PathBuf,
    pub modules: PathBuf,
}

/// The newest of the series that the machine's package lists know.
pub fn get(kernel: &Kernel, folder: &Path) -> Result<Unpacked, Failure> {
    let package = newest(kernel)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let unpacked = folder.join(&release);
    if !unpacked.exists() {
        unpack(&package, folder, &unpacked)?;
    }
    Ok(Unpacked {
        kernel: unpacked.join(format!("boot/vmlinuz-{release}")),
        modules: unpacked.join("lib/modules").join(&release),
        release,
    })
}

fn newest(kernel: &Kernel) -> Result<String, Failure> {
    let question = ["depends", "--important", kernel.package];
    let answer = run::ask(Command::new("apt-cache").args(question)).unwrap_or_default();
    image_of(&answer).map(str::to_owned).ok_or_else(|| {
        Failure::new(format!(
            "test-kernels: there is no package {} here; it is Debian 12's, for amd64: add `bookworm` and `bookworm-security` to \
             the sources of apt, then `apt-get update`",
            kernel.package
        ))
    })
}

/// The package with the kernel itself, in what `apt-cache depends` says of the one that names the newest.
fn image_of(answer: &str) -> Option<&str> {
    answer
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

fn unpack(package: &str, folder: &Path, unpacked: &Path) -> Result<(), Failure> {
    // Beside it first: what has the final name is complete.
    let partial = folder.join("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(|error| failed("make", &partial, &error))?;
    step(
        "test-kernels",
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(&partial),
    )?;
    let archive = fs::read_dir(&partial)
        .ok()
        .and_then(|mut entries| entries.next()?.ok())
        .ok_or_else(|| Failure::new(format!("test-kernels: apt-get left no {package}")))?
        .path();
    let content = partial.join("content");
    step(
        "test-kernels",
        Command::new("dpkg-deb")
            .arg("-x")
            .args([&archive, &content]),
    )?;
    fs::rename(&content, unpacked).map_err(|error| failed("make", unpacked, &error))?;
    fs::remove_dir_all(&partial).map_err(|error| failed("remove", &partial, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_in_what_apt_says() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(image_of(answer), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(image_of("linux-image-cloud-amd64\n"), None);
        assert_eq!(image_of(""), None);
    }
}
