//! TC programs where the kernel has no TCX (before 6.6): BPF filters of a clsact qdisc.
//!
//! Such a filter has no link that could be pinned. It stands until it is deleted, so it is found again by
//! what it is: of our priority, and with a name that tells the program and the bpf-dir of the agent:
//!
//! ```text
//!   # tc filter show dev eth0 egress
//!   filter protocol all pref 1 bpf chain 0 handle 0x766970 vip_egress /sys/fs/bpf/vip-agent direct-action …
//! ```
//!
//! The kernel changes the program of a filter that stands in place: no frame is seen by none.

mod kernel;

use std::{
    collections::BTreeMap,
    io,
    os::fd::BorrowedFd,
    path::{self, Path},
};

use aya::programs::TcAttachType;
use nix::libc;

use kernel::{Filter, Kernel};

/// The first that there is: a filter that accepts a frame keeps it from those behind it.
const PRIORITY: u16 = 1;
/// "vip"; that of a second agent on the interface is the next one.
const HANDLE: u32 = 0x0076_6970;
/// At the end of the name of a filter whose agent made the qdisc, and has to take it away.
const MADE: &str = " +clsact";
/// What fits into a filter's name beside the program's name (`CLS_BPF_NAME_LEN` of the kernel is 256).
const OWNER_LEN: usize = 200;

/// The filters of one agent in the network namespace of the calling thread.
#[derive(Debug)]
pub(super) struct Filters {
    owner: String,
    /// Those that this process attached or adopted.
    held: BTreeMap<Place, Held>,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub ifindex: u32,
    /// The program's name.
    pub program: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    hook: TcAttachType,
    handle: u32,
    program_id: u32,
}

impl Filters {
    /// Those of the agent that has this bpf-dir; it holds none of them yet.
    pub fn of(bpf_dir: &Path) -> Self {
        let path = path::absolute(bpf_dir).unwrap_or_else(|_| bpf_dir.to_owned());
        Self {
            owner: end_of(&path.to_string_lossy(), OWNER_LEN).to_owned(),
            held: BTreeMap::new(),
        }
    }

    pub fn holds(&self, place: Place) -> bool {
        self.held.contains_key(&place)
    }

    /// Whether there is one, whoever attached it.
    pub fn finds(&self, place: Place, hook: TcAttachType) -> bool {
        let standing =
            Kernel::open().and_then(|kernel| kernel.filters(place.ifindex, hook, PRIORITY));
        standing.is_ok_and(|standing| standing.iter().any(|one| self.owns(one, place.program)))
    }

    /// Attaches a program, or puts it in place of the one that an earlier process attached there.
    /// The error says why not.
    pub fn attach(
        &mut self,
        place: Place,
        hook: TcAttachType,
        program: BorrowedFd<'_>,
        program_id: u32,
    ) -> Result<(), String> {
        let kernel = Kernel::open().map_err(said("no netlink socket"))?;
        let standing = kernel
            .filters(place.ifindex, hook, PRIORITY)
            .map_err(said("its filters cannot be listed"))?;
        let ours = standing
            .iter()
            .find(|filter| self.owns(filter, place.program));
        let handle = match ours {
            Some(filter) => {
                kernel
                    .replace(place.ifindex, hook, PRIORITY, filter, program)
                    .map_err(said("its filter cannot be changed"))?;
                filter.handle
            }
            None => self.add(&kernel, place, hook, program, &standing)?,
        };
        let held = Held {
            hook,
            handle,
            program_id,
        };
        self.held.insert(place, held);
        Ok(())
    }

    /// Detaches what this process holds on an interface. One that has gone took its filters with it.
    pub fn forget_interface(&mut self, ifindex: u32) -> Result<(), String> {
        let places: Vec<Place> = self.held.keys().copied().collect();
        if !places.iter().any(|place| place.ifindex == ifindex) {
            return Ok(());
        }
        self.held.retain(|place, _| place.ifindex != ifindex);
        self.detach_on(ifindex, |_| true)
    }

    /// Detaches what an earlier process attached and this one does not hold. Returns where.
    pub fn drop_unused(&self) -> Result<Vec<u32>, String> {
        let mut dropped = Vec::new();
        for ifindex in self.interfaces()? {
            let held = |filter: &Filter| {
                let mut held = self.held.iter();
                held.any(|(place, held)| {
                    place.ifindex == ifindex
                        && held.hook == filter.hook
                        && held.handle == filter.handle
                })
            };
            if self.ours_on(ifindex)?.iter().any(|filter| !held(filter)) {
                self.detach_on(ifindex, |filter| !held(filter))?;
                dropped.push(ifindex);
            }
        }
        Ok(dropped)
    }

    /// Detaches all, whoever attached them.
    pub fn detach_all(&self) -> Result<(), String> {
        let mut outcome = Ok(());
        for ifindex in self.interfaces()? {
            outcome = outcome.and(self.detach_on(ifindex, |_| true));
        }
        outcome
    }

    /// Whether there are any, whoever attached them.
    pub fn are_there(&self) -> Result<bool, String> {
        for ifindex in self.interfaces()? {
            if !self.ours_on(ifindex)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks for what this process holds; what is not there any more is forgotten, and returned.
    /// What can't be told counts as there: the interface would be given up for nothing.
    pub fn look_after(&mut self) -> Vec<Place> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let Ok(kernel) = Kernel::open() else {
            return Vec::new();
        };
        let is_gone = |place: &Place, held: &Held| {
            let standing = kernel.filters(place.ifindex, held.hook, PRIORITY);
            standing.is_ok_and(|standing| {
                !standing.iter().any(|filter| {
                    filter.handle == held.handle && filter.program_id == held.program_id
                })
            })
        };
        let gone: Vec<Place> = self
            .held
            .iter()
            .filter(|(place, held)| is_gone(place, held))
            .map(|(place, _)| *place)
            .collect();
        for place in &gone {
            self.held.remove(place);
        }
        gone
    }

    fn add(
        &self,
        kernel: &Kernel,
        place: Place,
        hook: TcAttachType,
        program: BorrowedFd<'_>,
        standing: &[Filter],
    ) -> Result<u32, String> {
        let Place {
            ifindex,
            program: name,
        } = place;
        let made = self.make_qdisc(kernel, ifindex)?;
        let taken = |handle: &u32| standing.iter().any(|filter| filter.handle == *handle);
        let handle = (HANDLE..).find(|handle| !taken(handle)).unwrap_or(HANDLE);
        let filter = Filter {
            hook,
            handle,
            name: self.name(name, made),
            program_id: 0,
        };
        let added = kernel.add(ifindex, hook, PRIORITY, &filter, program);
        if let Err(error) = added {
            if made {
                // Ours alone, or not empty any more.
                let _ = kernel.remove_empty_clsact(ifindex);
            }
            return Err(if error.raw_os_error() == Some(libc::EINVAL) {
                format!(
                    "{error}; if a filter of another kind or protocol has priority {PRIORITY} there \
                     (`tc filter show`), move that one"
                )
            } else {
                error.to_string()
            });
        }
        Ok(handle)
    }

    /// Returns whether the qdisc is ours to take away.
    fn make_qdisc(&self, kernel: &Kernel, ifindex: u32) -> Result<bool, String> {
        let kinds = kernel
            .qdiscs()
            .map_err(said("its qdiscs cannot be listed"))?;
        match kinds.get(&ifindex).map(String::as_str) {
            Some("clsact") => Ok(self.ours_on(ifindex)?.iter().any(is_made)),
            // A filter for egress would sit on its ingress.
            Some(other) => Err(format!(
                "it has the qdisc `{other}` where clsact has to be; whoever needs that can have clsact \
                 in its place, which does the same on ingress"
            )),
            None => kernel
                .add_clsact(ifindex)
                .map(|()| true)
                .map_err(said("no clsact qdisc can be added")),
        }
    }

    fn detach_on(&self, ifindex: u32, which: impl Fn(&Filter) -> bool) -> Result<(), String> {
        let kernel = Kernel::open().map_err(said("no netlink socket"))?;
        let mut made = false;
        for filter in self.ours_on(ifindex)?.iter().filter(|one| which(one)) {
            match kernel.remove(ifindex, PRIORITY, filter) {
                Ok(()) => made |= is_made(filter),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(format!("{}: {error}", filter.name)),
            }
        }
        if !made {
            return Ok(());
        }
        match kernel.remove_empty_clsact(ifindex) {
            Err(error) if !is_gone(&error) => {
                Err(format!("the clsact qdisc cannot be removed: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// The interfaces that may have some of ours.
    fn interfaces(&self) -> Result<Vec<u32>, String> {
        let kernel = Kernel::open().map_err(said("no netlink socket"))?;
        let qdiscs = kernel
            .qdiscs()
            .map_err(said("the qdiscs cannot be listed"))?;
        let clsact = qdiscs.into_iter().filter(|(_, kind)| kind == "clsact");
        Ok(clsact.map(|(ifindex, _)| ifindex).collect())
    }

    fn ours_on(&self, ifindex: u32) -> Result<Vec<Filter>, String> {
        let kernel = Kernel::open().map_err(said("no netlink socket"))?;
        let mut found = Vec::new();
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            let standing = kernel
                .filters(ifindex, hook, PRIORITY)
                .map_err(said("the filters cannot be listed"))?;
            found.extend(standing.into_iter().filter(|filter| self.owns_some(filter)));
        }
        Ok(found)
    }

    fn name(&self, program: &str, made: bool) -> String {
        let made = if made { MADE } else { "" };
        format!("{program} {}{made}", self.owner)
    }

    fn owns(&self, filter: &Filter, program: &str) -> bool {
        [true, false]
            .map(|made| self.name(program, made))
            .contains(&filter.name)
    }

    fn owns_some(&self, filter: &Filter) -> bool {
        let program = filter.name.split(' ').next();
        program.is_some_and(|program| self.owns(filter, program))
    }
}

fn is_made(filter: &Filter) -> bool {
    filter.name.ends_with(MADE)
}

/// The filter, its qdisc or its interface is not there any more.
fn is_gone(error: &io::Error) -> bool {
    // A filter whose qdisc has gone is "invalid".
    let codes = [libc::ENOENT, libc::ENODEV, libc::EINVAL];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

fn said(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// The last `length` bytes of a text, or some less: a path's end tells more than its beginning.
fn end_of(text: &str, length: usize) -> &str {
    let earliest = text.len().saturating_sub(length);
    let start = (earliest..=text.len()).find(|at| text.is_char_boundary(*at));
    &text[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_known_by_program_and_bpf_dir() {
        let ours = Filters::of(Path::new("/sys/fs/bpf/vip-agent"));
        let named = |name: &str| Filter {
            hook: TcAttachType::Egress,
            handle: HANDLE,
            name: name.to_owned(),
            program_id: 1,
        };
        for made in [true, false] {
            let filter = named(&ours.name("vip_egress", made));
            assert!(ours.owns(&filter, "vip_egress") && ours.owns_some(&filter));
            assert!(!ours.owns(&filter, "vip_guard"));
            assert_eq!(is_made(&filter), made);
        }
        for other in [
            "vip_egress /sys/fs/bpf/vip-agent-2",
            "vip_egress /sys/fs/bpf/vip-agent-2 +clsact",
            "vip_egress",
            "",
        ] {
            assert!(!ours.owns_some(&named(other)), "{other}");
        }
    }

    #[test]
    fn a_name_fits_whatever_the_path() {
        let long = "/".to_owned() + &"ä".repeat(300);
        let filters = Filters::of(Path::new(&long));
        assert!(filters.name("vip_egress", true).len() < 256);
        assert!(filters.owner.ends_with('ä'));
        assert_eq!(end_of("/short", OWNER_LEN), "/short");
    }
}
