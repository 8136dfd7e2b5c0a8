//! One run of the testbed: its name, its directory, and what is left of runs that were killed half-way.
//!
//! Everything a run makes is found again by its name alone: network namespaces `<run>-…`, the processes that live in them, and the directory
//! `/run/vip-testbed/<run>` with logs, state, and the bpffs mounts. No list has to be kept up to date while things happen.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};

use crate::netns::Netns;
use crate::{disk, say, wait};

const ROOT: &str = "/run/vip-testbed";
const LOCK: &str = "/run/vip-testbed.lock";
/// A whole test suite may be ahead in the queue.
const TURN_WITHIN: Duration = Duration::from_secs(3600);

/// A run: the right to use the machine (one bed at a time, across processes), a name and a directory.
pub struct Run {
    name: String,
    directory: PathBuf,
    _machine: Flock<File>,
}

impl Run {
    /// Waits for its turn, clears what killed runs left, and makes the directory.
    pub fn begin() -> Result<Run> {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let machine = machine()?;
        for name in clear_leftovers()? {
            say::line(&format!("testbed: cleared what run {name} had left behind"));
        }
        let pid = std::process::id();
        let name = match BEDS.fetch_add(1, Ordering::Relaxed) {
            0 => format!("vt{pid}"),
            number => format!("vt{pid}.{number}"),
        };
        let directory = Path::new(ROOT).join(&name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        fs::write(
            directory.join("owner"),
            format!("{pid} {}\n", start_time(pid).unwrap_or_default()),
        )?;
        Ok(Run {
            name,
            directory,
            _machine: machine,
        })
    }

    /// Its name: `vt<pid>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/run/vip-testbed/<run>`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a namespace of this run.
    pub fn namespace(&self, role: &str) -> Result<Netns> {
        Netns::create(&format!("{}-{role}", self.name))
    }

    /// Mounts a bpffs at `<directory>/<role>/bpf` and returns that path. Here and not in a namespace's process, whose mounts would die with it.
    pub fn bpffs(&self, role: &str) -> Result<PathBuf> {
        let path = self.directory.join(role).join("bpf");
        fs::create_dir_all(&path)?;
        mount(
            Some("vip-testbed"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting a bpffs at {}", path.display()))?;
        Ok(path)
    }

    /// Marks the run as left standing on purpose: later runs leave it alone, only [`take_down_kept`] clears it.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.directory.join("kept"), "")?;
        Ok(())
    }

    /// Takes everything of this run away; tells all that went wrong, not only the first.
    pub fn clear(&self) -> Result<()> {
        clear(&self.name)
    }
}

/// Clears the runs that were left standing on purpose, and the leftovers of killed ones; returns their names.
pub fn take_down_kept() -> Result<Vec<String>> {
    let _machine = machine()?;
    for name in runs()? {
        let kept = Path::new(ROOT).join(name).join("kept");
        if kept.exists() {
            fs::remove_file(kept)?;
        }
    }
    clear_leftovers()
}

fn machine() -> Result<Flock<File>> {
    let mut told = false;
    // Not a blocking lock: Ctrl-C has to get through.
    let mut lock = wait::until("another run of the testbed to end", TURN_WITHIN, || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(LOCK);
        match Flock::lock(
            file.with_context(|| format!("opening {LOCK}"))?,
            FlockArg::LockExclusiveNonblock,
        ) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = fs::read_to_string(LOCK).unwrap_or_default();
                let ours = holder.trim() == std::process::id().to_string();
                if !ours && !std::mem::replace(&mut told, true) {
                    say::line(&format!(
                        "testbed: waiting for another run to end (process {})",
                        holder.trim()
                    ));
                }
                Ok(None)
            }
            Err((_, error)) => Err(anyhow!("locking {LOCK}: {error}")),
        }
    })?;
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}

fn clear_leftovers() -> Result<Vec<String>> {
    let mut cleared = Vec::new();
    for name in runs()? {
        let directory = Path::new(ROOT).join(&name);
        if directory.join("kept").exists() || owner_lives(&directory) {
            continue;
        }
        clear(&name).with_context(|| format!("clearing what run {name} had left behind"))?;
        cleared.push(name);
    }
    Ok(cleared)
}

/// The runs that have a directory; what else somebody put there is not ours to clear.
fn runs() -> Result<Vec<String>> {
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {ROOT}")),
    };
    let names: Vec<String> = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let is_run = |name: &String| {
        let number = name.strip_prefix("vt").unwrap_or_default();
        number.starts_with(|first: char| first.is_ascii_digit())
    };
    Ok(names.into_iter().filter(is_run).collect())
}

fn clear(run: &str) -> Result<()> {
    let mut errors = Vec::new();
    let mut note =
        |result: Result<()>| errors.extend(result.err().map(|error| format!("{error:#}")));
    let directory = Path::new(ROOT).join(run);
    for disk in mounts_under(&directory, "ext4")? {
        // One that is not frozen says so. Who waits for one that is cannot be killed.
        let _ = disk::thaw(&disk);
    }
    let namespaces = Netns::list(&format!("{run}-"))?;
    for netns in &namespaces {
        note(kill_all_in(netns));
    }
    for netns in &namespaces {
        note(netns.delete());
    }
    for mounted in mounts_under(&directory, "")? {
        note(
            umount2(&mounted, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmounting {}", mounted.display())),
        );
    }
    // A bpffs that would not go must not lose the logs that tell why.
    if mounts_under(&directory, "")?.is_empty() && directory.exists() {
        note(
            fs::remove_dir_all(&directory)
                .with_context(|| format!("removing {}", directory.display())),
        );
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("; "));
    }
    Ok(())
}

/// A namespace of ours holds nobody else's processes, so no list of pids is needed that could be stale or reused.
fn kill_all_in(netns: &Netns) -> Result<()> {
    let mut rounds = 0;
    loop {
        let pids = netns.pids()?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            // Gone in the meantime is as good as killed.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        rounds += 1;
        if rounds > 200 {
            bail!(
                "processes {pids:?} in network namespace {} do not die",
                netns.name()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The mount points of one kind of file system; of any, if `kind` is empty.
fn mounts_under(directory: &Path, kind: &str) -> Result<Vec<PathBuf>> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let is_kind = |line: &&str| {
        let found = line.split(" - ").nth(1).unwrap_or_default();
        found.starts_with(kind)
    };
    let points = table
        .lines()
        .filter(is_kind)
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    Ok(points
        .filter(|point| point.starts_with(directory))
        .collect())
}

fn owner_lives(directory: &Path) -> bool {
    let Ok(owner) = fs::read_to_string(directory.join("owner")) else {
        return false;
    };
    let Some((pid, started)) = owner.trim().split_once(' ') else {
        return false;
    };
    pid.parse()
        .ok()
        .and_then(start_time)
        .is_some_and(|now| now == started)
}

/// Field 22 of `/proc/<pid>/stat`: tells a process from a later one with the same number.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

impl Drop for Run {
    fn drop(&mut self) {
        let kept = self.directory.join("kept").exists();
        if !kept && self.directory.exists() {
            // An interrupted or panicking run; the error has nowhere else to go.
            if let Err(error) = self.clear() {
                say::line(&format!("testbed: {error:#}"));
            }
        }
    }
}
