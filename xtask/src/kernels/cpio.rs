//! An archive in the "newc" format of cpio, which the kernel unpacks into its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Writes an archive: folders are made as files need them.
pub struct Archive<W> {
    to: W,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Archive<W> {
        Archive {
            to,
            entries: 0,
            folders: BTreeSet::new(),
        }
    }

    /// A file that may be run, at an absolute path.
    pub fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY, &[])?;
            }
        }
        self.entry(path, PROGRAM, content)
    }

    /// Writes the end, and hands back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        // inode, mode, uid, gid, links, time, size, device (2), device if special (2), size of the name, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length(content.len())?,
            0,
            0,
            0,
            0,
            length(name.len() + 1)?,
            0,
        ];
        let mut header = "070701".to_owned();
        for field in fields {
            header += &format!("{field:08x}");
        }
        header += name;
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(content)
    }

    /// Each part ends at a multiple of four bytes.
    fn padded(&mut self, part: &[u8]) -> io::Result<()> {
        self.to.write_all(part)?;
        let padding = part.len().next_multiple_of(4) - part.len();
        self.to.write_all(&[0; 4][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.add("/a/b", b"hello").expect("memory takes it");
        let bytes = archive.finish().expect("memory takes it");
        let text = String::from_utf8(bytes).expect("all of it is ASCII");
        let header = |inode: u32, mode: u32, size: u32, name: u32| {
            format!(
                "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:032x}{name:08x}{:08x}",
                0, 0, 1, 0, 0, 0
            )
        };
        let folder = header(1, DIRECTORY, 0, 2) + "a\0";
        let file = header(2, PROGRAM, 5, 4) + "a/b\0" + "\0\0" + "hello\0\0\0";
        let end = header(3, 0, 0, 11) + "TRAILER!!!\0" + "\0\0\0";
        assert_eq!(text, folder + &file + &end);
        assert!(text.len().is_multiple_of(4));
    }
}
