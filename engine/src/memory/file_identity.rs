//! Whether a file at the destination is the file that is mapped here.
//!
//! Its size always; and of what is mapped executable its build id, or the hash of all of it when
//! the linker gave it none. Code of another build at the same address is a crash that comes late.

use crate::error::{Error, Object, OnObject as _};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FileIdentity {
    #[prost(uint64, tag = "1")]
    pub size: u64,
    /// Of the GNU note; empty when it has none or the mapping is not executable.
    #[prost(bytes = "vec", tag = "2")]
    pub build_id: Vec<u8>,
    /// Of an executable without a build id.
    #[prost(bytes = "vec", tag = "3")]
    pub blake3: Vec<u8>,
}

impl FileIdentity {
    /// Reads the whole file when it is code without a build id, so not for use in the freeze.
    pub fn of(file: &File, is_executed: bool, object: impl Fn() -> Object) -> Result<Self, Error> {
        Self::look(file, is_executed).on("identify", object)
    }

    fn look(file: &File, is_executed: bool) -> io::Result<Self> {
        let size = file.metadata()?.size();
        let mut identity = Self { size, ..Self::default() };
        if is_executed {
            identity.build_id = build_id(file).unwrap_or_default();
            if identity.build_id.is_empty() {
                identity.blake3 = hash(file)?;
            }
        }
        Ok(identity)
    }

    /// What differs, as a clause that goes on from the file's name.
    pub fn difference(&self, there: &Self) -> Option<String> {
        if self.size != there.size {
            return Some(format!("has {} bytes here and {} there", self.size, there.size));
        }
        let differs = self.build_id != there.build_id || self.blake3 != there.blake3;
        differs.then(|| "is another build there".to_owned())
    }
}

fn hash(file: &File) -> io::Result<Vec<u8>> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok(hasher.finalize().as_bytes().to_vec());
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
}

/// elf(5), 64 bit, little endian.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const NOTES_BYTES_MAX: u64 = 64 * 1024;

fn build_id(file: &File) -> Option<Vec<u8>> {
    let header = part(file, 0, 64)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    let offset = u64_at(&header, 32)?;
    let (size, count) = (u16_at(&header, 54)?, u16_at(&header, 56)?);
    let segments = (0..u64::from(count)).map(|index| index * u64::from(size));
    segments
        .filter_map(|at| part(file, offset.checked_add(at)?, 56))
        .filter(|segment| u32_at(segment, 0) == Some(PT_NOTE))
        .find_map(|segment| {
            let bytes = u64_at(&segment, 32)?.min(NOTES_BYTES_MAX);
            build_id_in(&part(file, u64_at(&segment, 8)?, bytes)?)
        })
}

fn build_id_in(mut notes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let name_bytes = usize::try_from(u32_at(notes, 0)?).ok()?;
        let content_bytes = usize::try_from(u32_at(notes, 4)?).ok()?;
        let content = 12 + name_bytes.next_multiple_of(4);
        let end = content.checked_add(content_bytes)?;
        let is_build_id = u32_at(notes, 8)? == NT_GNU_BUILD_ID;
        if is_build_id && notes.get(12..12 + name_bytes)? == b"GNU\0" {
            return notes.get(content..end).map(<[u8]>::to_vec);
        }
        notes = notes.get(end.next_multiple_of(4)..)?;
    }
}

fn part(file: &File, offset: u64, bytes: u64) -> Option<Vec<u8>> {
    let mut part = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut part, offset).ok()?;
    Some(part)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(path: &str, is_executed: bool) -> FileIdentity {
        FileIdentity::look(&File::open(path).unwrap(), is_executed).unwrap()
    }

    #[test]
    fn a_program_has_its_build_id_and_no_hash() {
        let shell = identity("/bin/sh", true);
        assert_eq!((shell.build_id.len(), shell.blake3.len()), (20, 0));
        assert_eq!(shell.difference(&identity("/bin/sh", true)), None);
    }

    #[test]
    fn code_without_a_build_id_is_hashed_and_data_is_only_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        std::fs::write(&path, b"\x7fELF\x02\x01 and no more").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(identity(path, true).blake3.len(), 32);
        assert_eq!(identity(path, false), FileIdentity { size: 18, ..FileIdentity::default() });
    }

    #[test]
    fn another_build_of_the_same_size_is_another_file() {
        let one = FileIdentity { size: 1, build_id: vec![1], blake3: vec![] };
        let other = FileIdentity { build_id: vec![2], ..one.clone() };
        assert!(one.difference(&other).is_some());
        let longer = FileIdentity { size: 2, ..one.clone() };
        assert_eq!(one.difference(&longer).unwrap(), "has 1 bytes here and 2 there");
    }

    #[test]
    fn notes_that_lie_about_their_length_have_no_build_id() {
        let mut note = vec![4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0];
        note.extend_from_slice(b"GNU\0");
        assert_eq!(build_id_in(&note), None);
        assert_eq!(build_id_in(&[0xff; 12]), None);
    }
}
