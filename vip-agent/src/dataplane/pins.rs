//! What is pinned, and where.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use vip_common::abi::{ABI_VERSION, names};

use super::{clsact::Filters, error::DataplaneError, migrate::OtherMaps};

/// The directory of a version's maps, followed by its number.
const MAPS_PREFIX: &str = "abi-v";

/// What a dead agent left under its bpf-dir, locked against a start in the meantime.
pub struct Leftovers {
    /// Those that are left.
    pins: Option<Pins>,
    filters: Filters,
    /// Those that can be read.
    maps: Vec<OtherMaps>,
    vips: Vec<IpAddr>,
}

impl Leftovers {
    /// Looks for them; `None` if there are none.
    pub fn find(bpf_dir: &Path) -> Result<Option<Self>, DataplaneError> {
        let filters = Filters::of(bpf_dir);
        if !bpf_dir.exists() {
            // They need no pins to stand.
            let are_left = filters.are_there().map_err(DataplaneError::Filters)?;
            return Ok(are_left.then(|| Self {
                pins: None,
                filters,
                maps: Vec::new(),
                vips: Vec::new(),
            }));
        }
        require_bpffs(bpf_dir, bpf_dir)?;
        let pins = Pins {
            root: bpf_dir.to_owned(),
            made: Made::default(),
            lock: lock(bpf_dir)?,
        };
        let (mut maps, mut vips) = (Vec::new(), BTreeSet::new());
        for version in pins.versions()? {
            let read = OtherMaps::open(&pins, version).and_then(|one| Ok((one.gates()?, one)));
            match read {
                Ok((gates, one)) => {
                    vips.extend(gates.iter().map(|(vip, _)| vip.ip()));
                    maps.push(one);
                }
                Err(error) => {
                    tracing::warn!(%error, "the gates could not be read; their addresses are not looked for");
                }
            }
        }
        let vips = vips.into_iter().collect();
        Ok(Some(Self {
            pins: Some(pins),
            filters,
            maps,
            vips,
        }))
    }

    /// The shared IPs that have a gate there.
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// Shuts all gates, as the end of the lease would.
    pub fn shut(&self) {
        for maps in &self.maps {
            maps.set_lease_deadline_ns(0);
        }
    }

    /// Detaches the programs and removes the maps and the directory.
    pub fn take_away(self) -> Result<(), DataplaneError> {
        if let Some(pins) = &self.pins {
            pins.remove_links()?;
        }
        self.filters.detach_all().map_err(DataplaneError::Filters)?;
        self.pins.map_or(Ok(()), |pins| pins.remove_rest())
    }
}

/// A directory of pins, locked: two agents with state directories of their own would still swap
/// each other's programs.
pub(super) struct Pins {
    root: PathBuf,
    /// What was made since, and is taken away again unless it is [kept](Self::keep). Dropped, like
    /// all fields, in their order: before the lock.
    made: Made,
    lock: Flock<File>,
}

/// Files and directories, in the order in which they were made.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Pins {
    /// Makes the directories where they lack.
    pub fn open(root: &Path) -> Result<Self, DataplaneError> {
        let standing = root
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        require_bpffs(standing, root)?;
        let mut made = Made::default();
        made.directory(root)?;
        let mut pins = match lock(root) {
            Ok(lock) => Self {
                root: root.to_owned(),
                made,
                lock,
            },
            Err(error) => {
                if matches!(error, DataplaneError::Busy { .. }) {
                    // It is another's now, whoever made it.
                    made.0.clear();
                }
                return Err(error);
            }
        };
        pins.made.directory(&pins.links())?;
        Ok(pins)
    }

    /// Makes the directory of this version's maps where it lacks; what is pinned there from now on
    /// counts as made here. Returns whether it lacked.
    pub fn make_maps(&mut self) -> Result<bool, DataplaneError> {
        let maps = self.maps(ABI_VERSION);
        let lacked = !maps.exists();
        self.made.directory(&maps)?;
        for name in names::MAPS {
            let path = self.map(name);
            if !path.exists() {
                self.made.0.push(path);
            }
        }
        Ok(lacked)
    }

    /// What was made so far is to stay.
    pub fn keep(&mut self) {
        self.made.0.clear();
    }

    /// The versions whose maps are here.
    pub fn versions(&self) -> Result<Vec<u32>, DataplaneError> {
        let names = entries(&self.root).map_err(DataplaneError::io(&self.root))?;
        let mut versions: Vec<u32> = names
            .iter()
            .filter_map(|name| name.strip_prefix(MAPS_PREFIX)?.parse().ok())
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directories anew where they were removed, and locks what it made. Returns whether
    /// there was anything to do.
    pub fn restore_directories(&mut self) -> Result<bool, DataplaneError> {
        let is_ours = is_same(&self.lock, &self.root);
        if !is_ours {
            *self = Self::open(&self.root)?;
        }
        let directories = [self.links(), self.maps(ABI_VERSION)];
        let lacks = directories.iter().any(|directory| !directory.exists());
        for directory in &directories {
            self.made.directory(directory)?;
        }
        self.keep();
        Ok(lacks || !is_ours)
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.map_of(ABI_VERSION, name)
    }

    pub fn map_of(&self, version: u32, name: &str) -> PathBuf {
        self.maps(version).join(name)
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

    /// Removes the maps of a version.
    pub fn remove_maps(&self, version: u32) -> Result<(), DataplaneError> {
        remove_all(&self.maps(version))
    }

    /// Removes the maps and the directory.
    pub fn remove_rest(&self) -> Result<(), DataplaneError> {
        remove_all(&self.root)
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    fn maps(&self, version: u32) -> PathBuf {
        self.root.join(format!("{MAPS_PREFIX}{version}"))
    }
}

impl Made {
    /// Makes a directory, and those above it, where they lack.
    fn directory(&mut self, path: &Path) -> Result<(), DataplaneError> {
        let lacking: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for path in lacking.into_iter().rev() {
            match fs::create_dir(path) {
                Ok(()) => self.0.push(path.to_owned()),
                // Another agent was quicker.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(DataplaneError::Permission {
                        what: format!("make {}", path.display()),
                        cause,
                    });
                }
                Err(cause) => return Err(DataplaneError::io(path)(cause)),
            }
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let removed = if path.is_dir() {
                fs::remove_dir(path)
            } else {
                remove(path)
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "a pin could not be removed");
            }
        }
    }
}

/// A directory can be locked like any file; its owner's end, whatever the manner, unlocks it.
/// Whether an agent that runs has its pins there.
pub fn is_in_use(root: &Path) -> bool {
    matches!(lock(root), Err(DataplaneError::Busy { .. }))
}

fn lock(root: &Path) -> Result<Flock<File>, DataplaneError> {
    let directory = File::open(root).map_err(DataplaneError::io(root))?;
    let busy = || DataplaneError::Busy {
        path: root.to_owned(),
    };
    let locked = Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|_| busy())?;
    // One that ended meanwhile may have taken the directory away, and a third made it again.
    if !is_same(&locked, root) {
        return Err(busy());
    }
    Ok(locked)
}

fn is_same(held: &File, path: &Path) -> bool {
    let inode =
        |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    inode(held.metadata()) == inode(fs::metadata(path))
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

/// Removes a directory with all that is in it. Of several failures the first is returned, after all
/// was tried.
fn remove_all(directory: &Path) -> Result<(), DataplaneError> {
    let mut outcome = Ok(());
    for name in entries(directory).map_err(DataplaneError::io(directory))? {
        let path = directory.join(name);
        let removed = if path.is_dir() {
            remove_all(&path)
        } else {
            remove(&path).map_err(DataplaneError::io(path))
        };
        outcome = outcome.and(removed);
    }
    outcome.and(fs::remove_dir(directory).map_err(DataplaneError::io(directory)))
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
