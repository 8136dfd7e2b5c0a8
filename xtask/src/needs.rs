//! What building and testing need, and how each is recognised.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{self, Failure};
use crate::tool;

/// The linker whose LLVM fits the pinned toolchain: a newer one wants an LLVM from elsewhere.
pub const BPF_LINKER: &str = "0.10.3";

/// Something to install, from where, and what for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    pub source: Source,
    pub name: &'static str,
    pub purpose: &'static str,
    sign: Sign,
}

/// Who installs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Apt,
    Rustup,
    Cargo,
}

/// Those of `wanted` that this machine does not meet.
pub fn missing(wanted: &[&[Need]]) -> Result<Vec<Need>, Failure> {
    let sysroot = run::ask(Command::new("rustc").args(["--print", "sysroot"]).current_dir(run::root()))
        .ok_or_else(|| Failure::new("cannot run `rustc --print sysroot`: is the toolchain of rust-toolchain.toml installed?"))?;
    let toolchain = Toolchain {
        sysroot: PathBuf::from(sysroot),
        by_rustup: tool::find("rustup").is_some(),
    };
    Ok(wanted
        .iter()
        .copied()
        .flatten()
        .filter(|need| !need.sign.shows(&toolchain))
        .copied()
        .collect())
}

/// What building, testing and the demo need.
pub const ALWAYS: &[Need] = &[
    apt("gcc", "links the Rust programs", Sign::Program("cc")),
    apt(
        "protobuf-compiler",
        "compiles etcd's protocol",
        Sign::Program("protoc"),
    ),
    apt(
        "libprotobuf-dev",
        "the definitions that etcd's protocol includes",
        Sign::File("/usr/include/google/protobuf/descriptor.proto"),
    ),
    apt(
        "etcd-server",
        "the tests' and the demo's etcd",
        Sign::Program("etcd"),
    ),
    apt(
        "etcd-client",
        "looks into that etcd",
        Sign::Program("etcdctl"),
    ),
    apt(
        "iproute2",
        "the tests' and the demo's network namespaces",
        Sign::Program("ip"),
    ),
    apt(
        "e2fsprogs",
        "the file system of an etcd member whose disk stalls in a test",
        Sign::Program("mkfs.ext4"),
    ),
    apt(
        "iputils-ping",
        "asks for a shared IP as a client would",
        Sign::Program("ping"),
    ),
    apt(
        "ethtool",
        "has an interface leave VLAN tags where they are",
        Sign::Program("ethtool"),
    ),
    apt(
        "tcpdump",
        "decodes what the agents and their programs send",
        Sign::Program("tcpdump"),
    ),
    apt(
        "bpftool",
        "shows what is loaded in the kernel",
        Sign::Program("bpftool"),
    ),
    apt(
        "shellcheck",
        "lints the example of a hook",
        Sign::Program("shellcheck"),
    ),
    apt(
        "curl",
        "what that example asks the cloud with",
        Sign::Program("curl"),
    ),
    apt("jq", "reads what the cloud says to it", Sign::Program("jq")),
    rustup(
        "rust-src",
        "core for the BPF target is built from it",
        Sign::Sysroot("lib/rustlib/src/rust/library"),
    ),
    rustup("clippy", "lints", Sign::ToolchainProgram("clippy-driver")),
    rustup("rustfmt", "format", Sign::ToolchainProgram("cargo-fmt")),
    Need {
        source: Source::Cargo,
        name: "bpf-linker",
        purpose: "links the kernel half",
        sign: Sign::BpfLinker,
    },
];

/// What the tests on other kernels need beside that.
pub const KERNELS: &[Need] = &[
    apt(
        "qemu-system-x86",
        "the machine that other kernels run in",
        Sign::Program("qemu-system-x86_64"),
    ),
    apt("dpkg", "unpacks these kernels", Sign::Program("dpkg-deb")),
    apt("xz-utils", "unpacks their modules", Sign::Program("xz")),
    apt(
        "binutils",
        "makes the tests small enough for that machine",
        Sign::Program("strip"),
    ),
];

const fn apt(name: &'static str, purpose: &'static str, sign: Sign) -> Need {
    Need {
        source: Source::Apt,
        name,
        purpose,
        sign,
    }
}

const fn rustup(name: &'static str, purpose: &'static str, sign: Sign) -> Need {
    Need {
        source: Source::Rustup,
        name,
        purpose,
        sign,
    }
}

/// By what a met need is recognised.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    Program(&'static str),
    File(&'static str),
    Sysroot(&'static str),
    ToolchainProgram(&'static str),
    BpfLinker,
}

struct Toolchain {
    sysroot: PathBuf,
    by_rustup: bool,
}

impl Sign {
    fn shows(self, toolchain: &Toolchain) -> bool {
        match self {
            Sign::Program(name) => tool::find(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Sysroot(path) => toolchain.sysroot.join(path).exists(),
            // rustup puts its own stand-in for every component into PATH, whether the component is there or not.
            Sign::ToolchainProgram(name) => {
                tool::is_program(&toolchain.sysroot.join("bin").join(name))
                    || (!toolchain.by_rustup && tool::find(name).is_some())
            }
            Sign::BpfLinker => run::ask(Command::new("bpf-linker").arg("--version"))
                .is_some_and(|answer| version(&answer) == Some(BPF_LINKER)),
        }
    }
}

/// The version in a program's answer to `--version`: the word after its name.
fn version(answer: &str) -> Option<&str> {
    answer.lines().next()?.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word_and_must_fit_exactly() {
        assert_eq!(version("bpf-linker 0.10.3"), Some(BPF_LINKER));
        assert_eq!(
            version("bpf-linker 0.10.3 (LLVM 22)\nmore"),
            Some(BPF_LINKER)
        );
        assert_ne!(version("bpf-linker 0.10.31"), Some(BPF_LINKER));
        assert_eq!(version(""), None);
        assert_eq!(version("bpf-linker"), None);
    }

    #[test]
    fn rustups_stand_ins_do_not_count_as_components() {
        let nowhere = |by_rustup| Toolchain {
            sysroot: PathBuf::from("/no/such/sysroot"),
            by_rustup,
        };
        assert!(!Sign::ToolchainProgram("sh").shows(&nowhere(true)));
        assert!(Sign::ToolchainProgram("sh").shows(&nowhere(false)));
        assert!(!Sign::Sysroot("bin").shows(&nowhere(false)));
    }
}
