//! Whether a file of an image is here, as it was.

use super::CopiedFile;
use super::copier::next_data;
use crate::error::{Error, OnObject as _};
use crate::image::store::Store;
use crate::memory::{DATA_BYTES_MAX, PageSink};
use crate::paths;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

pub(super) enum Here {
    Missing,
    /// Whatever else may be wrong with it is seen where every file of the tree is looked at.
    AsItIs,
    Differs(String),
}

pub(super) fn look(wanted: &CopiedFile, store: &Store) -> Result<Here, Error> {
    let found = match paths::look(&wanted.path).and_then(|place| place.metadata()) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Here::Missing),
        Err(error) => return Ok(Here::Differs(format!("cannot be looked at here: {error}"))),
    };
    if !found.is_file() {
        return Ok(Here::Differs("is no regular file here".to_owned()));
    }
    if found.len() != wanted.size {
        return Ok(Here::AsItIs);
    }
    let file = match paths::open_regular(&wanted.path, libc::O_RDONLY) {
        Ok(file) => File::from(file),
        Err(error) => return Ok(Here::Differs(format!("cannot be read here: {error}"))),
    };
    let mut same = Same { file: &file, size: wanted.size, at: 0, is_same: true };
    store.read_all(wanted.space, &mut same)?;
    let is_same = same.is_same && same.is_zero_until(wanted.size).on("read", || wanted.object())?;
    Ok(match is_same {
        true => Here::AsItIs,
        false => Here::Differs("has other content here than in the image".to_owned()),
    })
}

/// The last page of a file is filled with zeros behind its end.
pub(super) fn within(bytes: &[u8], address: u64, size: u64) -> &[u8] {
    let left = usize::try_from(size.saturating_sub(address)).unwrap_or(usize::MAX);
    &bytes[..bytes.len().min(left)]
}

/// Compares a file with what it is handed, which comes by rising offset; between that are zeros.
struct Same<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    is_same: bool,
}

impl Same<'_> {
    fn is_zero_until(&mut self, end: u64) -> io::Result<bool> {
        let mut room = vec![0; DATA_BYTES_MAX];
        while let Some((from, until)) = next_data(self.file, self.at, end)? {
            let length = usize::try_from(until - from).map_or(room.len(), |n| n.min(room.len()));
            self.file.read_exact_at(&mut room[..length], from)?;
            if room[..length].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            self.at = from + length as u64;
        }
        self.at = self.at.max(end);
        Ok(true)
    }
}

impl PageSink for Same<'_> {
    fn data(&mut self, _: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.is_same {
            return Ok(());
        }
        let wanted = within(bytes, address, self.size);
        let mut here = vec![0; wanted.len()];
        self.is_same = self.is_zero_until(address)?;
        // One that has become shorter meanwhile is not the same either.
        self.is_same &= self.file.read_exact_at(&mut here, address).is_ok() && here == wanted;
        self.at = address + wanted.len() as u64;
        Ok(())
    }

    fn zero(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
