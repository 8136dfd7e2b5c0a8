//! Network namespaces, made and removed by iproute2 so that `ip netns` shows them.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::command::run;

/// A named network namespace. Dropping it removes nothing: [`Netns::delete`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up.
    pub fn create(name: &str) -> Result<Netns> {
        run("ip", &["netns", "add", name])?;
        let netns = Netns {
            name: name.to_owned(),
        };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Every namespace whose name starts with `prefix`.
    pub fn list(prefix: &str) -> Result<Vec<Netns>> {
        let listing = run("ip", &["netns", "list"])?;
        let names = listing
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(names
            .filter(|name| name.starts_with(prefix))
            .map(|name| Netns {
                name: name.to_owned(),
            })
            .collect())
    }

    /// Its name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n <name> …`.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        run("ip", &all)
    }

    /// What the kernel's neighbour table there says of an address on `eth0`; empty if nothing.
    pub fn neighbour(&self, ip: IpAddr) -> Result<String> {
        self.ip(&["neighbour", "show", "to", &ip.to_string(), "dev", "eth0"])
    }

    /// Has a command start inside this namespace, in our mount namespace.
    pub fn place(&self, command: &mut Command) -> Result<()> {
        let file = self.open()?;
        // SAFETY: between fork and exec only setns is called, which is a plain system call on a descriptor that the closure owns.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        Ok(())
    }

    /// Moves the calling thread, for good, into this namespace.
    pub fn enter(&self) -> Result<()> {
        setns(self.open()?, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {}", self.name))
    }

    /// Runs a closure on a thread of its own inside this namespace and waits for it.
    pub fn within<T: Send>(&self, task: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                task()
            });
            worker
                .join()
                .map_err(|_| anyhow!("a thread in network namespace {} panicked", self.name))?
        })
    }

    /// The processes that live in this namespace.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let listing = run("ip", &["netns", "pids", &self.name])?;
        listing
            .lines()
            .map(|line| Ok(Pid::from_raw(line.trim().parse()?)))
            .collect()
    }

    /// Removes it, and with it the interfaces inside.
    pub fn delete(&self) -> Result<()> {
        run("ip", &["netns", "delete", &self.name]).map(drop)
    }

    fn open(&self) -> Result<File> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        File::open(&path).with_context(|| format!("opening network namespace {}", path.display()))
    }
}
