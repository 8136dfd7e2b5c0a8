//! The state directory: who runs here, which instance it is, and which lease it has.
//!
//! `lock` is held for as long as the agent lives; `instance` and `lease` let the next start go on
//! where this one ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    libc,
};

use crate::election::{History, LeaseId};

/// What keeps the state directory from being used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent runs there.
    #[error(
        "state-dir {}: another vip-agent{} is using it; stop that one first, or give this one \
         another state-dir, bpf-dir and node name",
        path.display(), pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
        /// Who, as far as it said.
        pid: Option<String>,
    },
    /// Something in it can't be read or written.
    #[error("state-dir: {}: {cause}{}", path.display(), mend(cause))]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The state directory of a running agent.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    instance: String,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory where it lacks (mode 0700), and locks it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |at: &Path| {
            let path = at.to_owned();
            move |cause| StateError::Io { path, cause }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io(path))?;
        let lock = lock(path)?;
        let instance_file = path.join("instance");
        let instance = match fs::read_to_string(&instance_file) {
            Ok(text) if is_instance(text.trim()) => text.trim().to_owned(),
            Ok(_) => new_instance(&instance_file).map_err(io(&instance_file))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                new_instance(&instance_file).map_err(io(&instance_file))?
            }
            Err(error) => return Err(io(&instance_file)(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            instance,
            _lock: lock,
        })
    }

    /// The id of this life of the node: 32 hex digits.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The lease that the last process had, if it left one in this very boot. Pins do not outlive a
    /// boot, and a copy of the directory on another machine must not go on with its original's.
    pub fn lease(&self) -> Option<LeaseId> {
        let text = fs::read_to_string(self.path.join("lease")).ok()?;
        let (lease, boot) = text.trim().split_once(' ')?;
        (boot == boot_id().ok()?).then_some(())?;
        i64::from_str_radix(lease, 16).ok().map(LeaseId)
    }

    /// Keeps the lease for the next start.
    pub fn remember(&self, lease: Option<LeaseId>) -> Result<(), StateError> {
        let file = self.path.join("lease");
        let kept = match lease {
            Some(lease) => boot_id().and_then(|boot| replace(&file, &format!("{lease} {boot}\n"))),
            None => ignore_missing(fs::remove_file(&file)),
        };
        kept.map_err(|cause| StateError::Io { path: file, cause })
    }

    /// How far etcd had come when the last process in this boot handed over or gave up something.
    pub fn history(&self) -> Option<History> {
        let text = fs::read_to_string(self.path.join("history")).ok()?;
        let mut words = text.split_whitespace();
        let cluster_id = u64::from_str_radix(words.next()?, 16).ok()?;
        let revision = words.next()?.parse().ok()?;
        (words.next()? == boot_id().ok()?).then_some(History {
            cluster_id,
            revision,
        })
    }

    /// Keeps that for the next start.
    pub fn note(&self, history: History) -> Result<(), StateError> {
        let file = self.path.join("history");
        let History {
            cluster_id,
            revision,
        } = history;
        boot_id()
            .and_then(|boot| replace(&file, &format!("{cluster_id:x} {revision} {boot}\n")))
            .map_err(|cause| StateError::Io { path: file, cause })
    }

    /// Where `vip-agent status` asks.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }

    /// Takes away all that the agent put there: there is no next start to go on.
    pub fn clear(self) -> io::Result<()> {
        clear(&self.path)
    }
}

/// The status socket of an agent with this state directory.
pub fn socket_in(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// What a dead agent left in its state directory, locked against a start in the meantime.
#[derive(Debug)]
pub struct Leftovers {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Leftovers {
    /// Looks for them; `None` if there is no such directory. Refused while an agent runs there.
    pub fn find(path: &Path) -> Result<Option<Self>, StateError> {
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            _lock: lock(path)?,
        }))
    }

    /// Takes them away.
    pub fn take_away(self) -> Result<(), StateError> {
        clear(&self.path).map_err(|cause| StateError::Io {
            path: self.path.clone(),
            cause,
        })
    }
}

fn clear(path: &Path) -> io::Result<()> {
    for file in [
        "agent.sock",
        "lease",
        "lease.new",
        "history",
        "history.new",
        "instance",
        "instance.new",
        "lock",
    ] {
        ignore_missing(fs::remove_file(path.join(file)))?;
    }
    // Kept if it holds anything else, or belongs to systemd.
    let _ = fs::remove_dir(path);
    Ok(())
}

fn lock(dir: &Path) -> Result<Flock<File>, StateError> {
    let path = dir.join("lock");
    let io = |cause| StateError::Io {
        path: path.clone(),
        cause,
    };
    loop {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(io)?;
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(io)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let pid = Some(holder.trim().to_owned()).filter(|pid| !pid.is_empty());
            StateError::Busy {
                path: dir.to_owned(),
                pid,
            }
        })?;
        // Whoever held it may have removed the file between our opening and our locking it.
        let ours = lock.metadata().map_err(io)?;
        if !fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
            continue;
        }
        // The lock holds without it; only whom it refuses is not told by whom.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        return Ok(lock);
    }
}

fn new_instance(file: &Path) -> io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let instance: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    replace(file, &format!("{instance}\n"))?;
    Ok(instance)
}

/// A random id that the kernel makes at each boot.
fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

fn is_instance(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Written beside and renamed over, so that a crash leaves the old or the new, never half.
fn replace(file: &Path, content: &str) -> io::Result<()> {
    let beside = file.with_extension("new");
    let replaced = fs::write(&beside, content).and_then(|()| fs::rename(&beside, file));
    if replaced.is_err() {
        // What it holds is not whole.
        let _ = fs::remove_file(&beside);
    }
    replaced
}

fn mend(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "; free some space or inodes there (`df`, `df -i`), or choose another state-dir"
        }
        Some(libc::EROFS) => "; choose a state-dir that can be written to",
        Some(libc::EACCES | libc::EPERM) => "; run as root, or choose another state-dir",
        _ => "",
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_and_lease_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let first = StateDir::open(dir.path()).expect("an empty directory can be used");
        let instance = first.instance().to_owned();
        first
            .remember(Some(LeaseId(0x1234)))
            .expect("a lease can be kept");
        let history = History {
            cluster_id: 0xfeed,
            revision: 42,
        };
        first.note(history).expect("a history can be kept");
        drop(first);
        let second = StateDir::open(dir.path()).expect("nobody else is there");
        assert_eq!(second.instance(), instance);
        assert_eq!(second.lease(), Some(LeaseId(0x1234)));
        assert_eq!(second.history(), Some(history));
    }

    #[test]
    fn a_lease_of_another_boot_is_not_gone_on_with() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::open(dir.path()).expect("an empty directory can be used");
        let file = dir.path().join("lease");
        for stranger in ["1234 another-boot", "1234", "", "nonsense"] {
            fs::write(&file, stranger).expect("a file can be written");
            assert_eq!(state.lease(), None, "{stranger}");
        }
    }

    #[test]
    fn a_second_agent_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _first = StateDir::open(dir.path()).expect("an empty directory can be used");
        let refused = StateDir::open(dir.path())
            .expect_err("it is taken")
            .to_string();
        assert!(
            refused.contains(&format!("(pid {})", std::process::id())),
            "{refused}"
        );
    }

    #[test]
    fn nothing_is_left_after_a_release() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("state");
        let state = StateDir::open(&path).expect("it is made where it lacks");
        state
            .remember(Some(LeaseId(1)))
            .expect("a lease can be kept");
        state.clear().expect("its own files can be removed");
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_instance_is_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("instance"), "oops").expect("a file can be written");
        let state = StateDir::open(dir.path()).expect("a damaged file is no reason to stop");
        assert!(is_instance(state.instance()));
    }
}
