//! What is pinned, and where.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use vip_common::abi::{ABI_VERSION, Gate, VipKey, names};

use super::error::DataplaneError;

/// What a dead agent left under its bpf-dir, locked against a start in the meantime.
pub struct Leftovers {
    pins: Pins,
    vips: Vec<IpAddr>,
}

impl Leftovers {
    /// Looks for them; `None` if there are none.
    pub fn find(bpf_dir: &Path) -> Result<Option<Self>, DataplaneError> {
        if !bpf_dir.exists() {
            return Ok(None);
        }
        require_bpffs(bpf_dir, bpf_dir)?;
        let pins = Pins {
            root: bpf_dir.to_owned(),
            lock: lock(bpf_dir)?,
        };
        let vips = pins.gates().unwrap_or_else(|error| {
            tracing::warn!(%error, "the gates could not be read; their addresses are not looked for");
            Vec::new()
        });
        Ok(Some(Self { pins, vips }))
    }

    /// The shared IPs that have a gate there.
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Shuts all gates, as the end of the lease would.
    pub fn shut(&self) -> Result<(), DataplaneError> {
        let path = self.pins.map(names::LEASE);
        if !path.exists() {
            return Ok(());
        }
        let failed = |error| DataplaneError::map(names::LEASE, error);
        let data = MapData::from_pin(&path).map_err(failed)?;
        let mut lease: Array<_, u64> = Map::Array(data).try_into().map_err(failed)?;
        lease.set(0, 0, 0).map_err(failed)
    }

    /// Detaches the programs and removes the maps and the directory.
    pub fn take_away(self) -> Result<(), DataplaneError> {
        self.pins.remove_links()?;
        self.pins.remove_rest()
    }
}

/// A directory of pins, locked: two agents with state directories of their own would still swap
/// each other's programs.
pub(super) struct Pins {
    root: PathBuf,
    lock: Flock<File>,
}

impl Pins {
    /// Makes the directory where it lacks, and refuses one of another ABI.
    pub fn open(root: &Path) -> Result<Self, DataplaneError> {
        let standing = root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        require_bpffs(standing, root)?;
        make_directory(root)?;
        let pins = Self {
            root: root.to_owned(),
            lock: lock(root)?,
        };
        make_directory(&pins.links())?;
        pins.require_abi()?;
        Ok(pins)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directories anew where they were removed, and locks what it made. Returns whether
    /// there was anything to do.
    pub fn restore_directories(&mut self) -> Result<bool, DataplaneError> {
        let (held, standing) = (self.lock.metadata(), fs::metadata(&self.root));
        let is_ours = match (held, standing) {
            (Ok(held), Ok(standing)) => {
                (held.dev(), held.ino()) == (standing.dev(), standing.ino())
            }
            _ => false,
        };
        if !is_ours {
            *self = Self::open(&self.root)?;
            return Ok(true);
        }
        let removed: Vec<PathBuf> = [self.links(), self.root.join(mark())]
            .into_iter()
            .filter(|directory| !directory.exists())
            .collect();
        for directory in &removed {
            make_directory(directory)?;
        }
        Ok(!removed.is_empty())
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    /// The names of the pinned links.
    pub fn link_names(&self) -> Result<Vec<String>, DataplaneError> {
        let directory = self.links();
        match entries(&directory) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(DataplaneError::io(directory)(error)),
        }
    }

    pub fn remove_link(&self, name: &str) -> Result<(), DataplaneError> {
        let path = self.link(name);
        remove(&path).map_err(DataplaneError::io(path))
    }

    /// Detaches everything that no process holds.
    pub fn remove_links(&self) -> Result<(), DataplaneError> {
        for name in self.link_names()? {
            self.remove_link(&name)?;
        }
        Ok(())
    }

    /// Removes the maps and the directory. Of several failures the first is returned, after all
    /// was tried.
    pub fn remove_rest(&self) -> Result<(), DataplaneError> {
        let mut first = None;
        let mut note = |path: PathBuf, result: io::Result<()>| {
            if let Err(error) = result {
                first.get_or_insert(DataplaneError::io(path)(error));
            }
        };
        for name in entries(&self.root).map_err(DataplaneError::io(&self.root))? {
            let path = self.root.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir(&path)
            } else {
                remove(&path)
            };
            note(path, removed);
        }
        note(self.root.clone(), fs::remove_dir(&self.root));
        first.map_or(Ok(()), Err)
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn require_abi(&self) -> Result<(), DataplaneError> {
        let ours = mark();
        let names = entries(&self.root).map_err(DataplaneError::io(&self.root))?;
        let marks: Vec<&String> = names
            .iter()
            .filter(|name| name.starts_with("abi-v"))
            .collect();
        let has_maps = names.iter().any(|name| name == names::GATES);
        match marks.as_slice() {
            [] if !has_maps => {
                let path = self.root.join(ours);
                fs::create_dir(&path).map_err(DataplaneError::io(path))
            }
            [mark] if **mark == ours => Ok(()),
            marks => Err(DataplaneError::OtherAbi {
                path: self.root.clone(),
                found: marks.first().map_or_else(
                    || "unmarked".to_owned(),
                    |mark| mark["abi-".len()..].to_owned(),
                ),
                ours: ABI_VERSION,
            }),
        }
    }

    fn gates(&self) -> Result<Vec<IpAddr>, DataplaneError> {
        let failed = |error| DataplaneError::map(names::GATES, error);
        let path = self.map(names::GATES);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let data = MapData::from_pin(&path).map_err(failed)?;
        let gates: HashMap<_, VipKey, Gate> = Map::HashMap(data).try_into().map_err(failed)?;
        gates
            .keys()
            .map(|vip| vip.map(|vip| vip.ip()).map_err(failed))
            .collect()
    }
}

/// The directory that tells which version the maps are of.
fn mark() -> String {
    format!("abi-v{ABI_VERSION}")
}

fn make_directory(path: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => DataplaneError::Permission {
            what: format!("make {}", path.display()),
            cause,
        },
        _ => DataplaneError::io(path)(cause),
    })
}

/// A directory can be locked like any file; its owner's end, whatever the manner, unlocks it.
fn lock(root: &Path) -> Result<Flock<File>, DataplaneError> {
    let directory = File::open(root).map_err(DataplaneError::io(root))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|_| DataplaneError::Busy {
        path: root.to_owned(),
    })
}

fn require_bpffs(standing: &Path, named: &Path) -> Result<(), DataplaneError> {
    let found = statfs(standing).map_err(|errno| DataplaneError::io(standing)(errno.into()))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(DataplaneError::NotBpffs {
        path: named.to_owned(),
    })
}

fn entries(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
