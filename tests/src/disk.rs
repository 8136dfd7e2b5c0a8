//! A disk of its own for a directory, so that it can stall while the rest of the machine's disks go on.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;

/// Room for etcd, which sets 64 MB aside for each file of its log.
const SIZE_BYTES: u64 = 512 << 20;

/// A file system in a file, mounted. The run's end unmounts it.
pub struct Disk(PathBuf);

/// A disk on which every write waits. Dropping it lets them go on: a program that waits for a disk cannot be killed.
pub struct Stalled<'a>(Option<&'a Disk>);

impl Disk {
    /// Makes one, and mounts it at an empty or missing directory.
    pub fn mount(at: &Path) -> Result<Disk> {
        let image = at.with_extension("img");
        File::create(&image)
            .and_then(|file| file.set_len(SIZE_BYTES))
            .with_context(|| format!("making {}", image.display()))?;
        fs::create_dir_all(at)?;
        let (image, point) = (image.to_string_lossy(), at.to_string_lossy());
        run("mkfs.ext4", &["-q", &image])?;
        run("mount", &["-o", "loop", &image, &point])?;
        fs::set_permissions(at, Permissions::from_mode(0o700))?;
        Ok(Disk(at.to_owned()))
    }

    /// Has every write to it wait.
    pub fn freeze(&self) -> Result<Stalled<'_>> {
        run("fsfreeze", &["--freeze", &self.0.to_string_lossy()])?;
        Ok(Stalled(Some(self)))
    }
}

impl Stalled<'_> {
    /// Lets the writes go on.
    pub fn thaw(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |disk| thaw(&disk.0))
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        if let Some(disk) = self.0.take() {
            // A failing scenario; its own error is the one to tell.
            let _ = thaw(&disk.0);
        }
    }
}

/// Thaws a mount of [`Disk::mount`] that a killed run may have left frozen.
pub fn thaw(mounted: &Path) -> Result<()> {
    run("fsfreeze", &["--unfreeze", &mounted.to_string_lossy()]).map(drop)
}
