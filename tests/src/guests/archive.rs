//! The archive that a kernel unpacks as its first root: cpio(5), the "new" format without checksums
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// With every directory above it; `path` is absolute.
    pub fn executable(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entry(&path[..end], DIRECTORY | 0o755, &[])?;
        }
        self.entry(path, REGULAR | 0o755, content)
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, owner, group, links, time, size, two devices of two numbers, name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        self.padded(&[name.as_bytes(), b"\0"].concat(), 110)?;
        self.padded(content, 0)
    }

    /// To a multiple of four, of what stands before it as well.
    fn padded(&mut self, bytes: &[u8], before: usize) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let end = before + bytes.len();
        self.out.write_all(&[0; 3][..end.next_multiple_of(4) - end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_layout_that_the_kernel_reads() {
        let mut archive = Archive::new(Vec::new());
        archive.executable("/bin/a", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert!(bytes.len().is_multiple_of(4));
        let text = String::from_utf8(bytes).unwrap();
        let headers: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(headers.len(), 3);
        assert!(headers.iter().all(|at| at.is_multiple_of(4)));
        let names: Vec<&str> =
            headers.iter().map(|at| text[at + 110..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["bin", "bin/a", "TRAILER!!!"]);
        assert_eq!(&text[headers[1] + 6 + 6 * 8..][..8], "00000005");
        assert_eq!(&text[headers[1] + 6 + 8..][..8], "000081ED");
    }
}
