//! The machine's first and only file system: our programs with the libraries they need, and modules. No distribution.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::package::Unpacked;
use super::{Programs, failed, modules};
use crate::run::{self, Failure};
use crate::tool;

/// What the tests call beside themselves.
const TOOLS: &[&str] = &["ip", "tc", "ethtool"];

pub fn write(image: &Path, kernel: &Unpacked, programs: &Programs) -> Result<(), Failure> {
    let file = File::create(image).map_err(|error| failed("write", image, &error))?;
    let mut archive = Archive::new(BufWriter::new(file));
    fill(&mut archive, kernel, programs)?;
    let written = archive.finish().map(drop);
    written.map_err(|error| failed("write", image, &error))
}

fn fill<W: std::io::Write>(
    archive: &mut Archive<W>,
    kernel: &Unpacked,
    programs: &Programs,
) -> Result<(), Failure> {
    let mut libraries = BTreeSet::new();
    let mut add = |archive: &mut Archive<W>, at: &str, program: &Path| {
        libraries.extend(needed_by(program)?);
        put(archive, at, &stripped(program)?)
    };
    add(archive, "/init", &programs.init)?;
    for (name, program) in &programs.tests {
        add(archive, &format!("/tests/{name}"), program)?;
    }
    for name in TOOLS {
        let tool = tool::find(name)
            .ok_or_else(|| Failure::new(format!("test-kernels: there is no `{name}` here")))?;
        add(archive, &format!("/bin/{name}"), &tool)?;
    }
    for library in libraries {
        let content = read(&library)?;
        put(archive, &library.to_string_lossy(), &content)?;
    }
    let order = modules::load_order(&kernel.modules)?;
    for (at, (name, module)) in order.iter().enumerate() {
        put(archive, &format!("/modules/{at:02}-{name}"), module)?;
    }
    Ok(())
}

fn put<W: std::io::Write>(
    archive: &mut Archive<W>,
    at: &str,
    content: &[u8],
) -> Result<(), Failure> {
    archive.add(at, content).map_err(|error| {
        Failure::new(format!(
            "test-kernels: cannot put {at} into the image: {error}"
        ))
    })
}

/// Where its libraries are here is where it looks for them there.
fn needed_by(program: &Path) -> Result<Vec<PathBuf>, Failure> {
    let answer = run::ask(Command::new("ldd").arg(program)).ok_or_else(|| {
        Failure::new(format!(
            "test-kernels: ldd cannot tell the libraries of {}",
            program.display()
        ))
    })?;
    Ok(libraries(&answer))
}

/// The paths in an answer of ldd: `name => path (address)` or `path (address)`.
fn libraries(answer: &str) -> Vec<PathBuf> {
    let words = |line: &str| {
        line.split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(PathBuf::from)
    };
    answer.lines().filter_map(words).collect()
}

/// Without what only a debugger reads, nine tenths of it.
fn stripped(program: &Path) -> Result<Vec<u8>, Failure> {
    let kept = run::target().join("kernels/stripped");
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(&kept).arg(program);
    run::ask(&mut strip).ok_or_else(|| {
        Failure::new(format!(
            "test-kernels: strip cannot read {}",
            program.display()
        ))
    })?;
    let content = read(&kept)?;
    fs::remove_file(&kept).map_err(|error| failed("remove", &kept, &error))?;
    Ok(content)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| failed("read", file, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let answer = "\tlinux-vdso.so.1 (0x00007f)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries(answer), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
