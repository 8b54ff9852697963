//! How a block of pages is written.

use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// Little is gained by more, and the tree runs or stands still meanwhile.
const LEVEL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Zstd,
}

impl Codec {
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    pub(super) fn of_number(number: u16) -> Option<Self> {
        [Self::Plain, Self::Zstd].into_iter().find(|codec| codec.number() == number)
    }

    /// Whether a block of `raw` bytes can take this many in the file.
    pub(super) fn fits(self, stored: usize, raw: usize) -> bool {
        match self {
            Self::Plain => stored == raw,
            Self::Zstd => stored < raw,
        }
    }
}

/// Makes blocks smaller where that is worth it.
pub(super) struct Packer(Option<Compressor<'static>>);

impl Packer {
    pub(super) fn new(compresses: bool) -> io::Result<Self> {
        compresses.then(|| Compressor::new(LEVEL)).transpose().map(Self)
    }

    /// What to write for these bytes: themselves, unless an eighth is saved.
    pub(super) fn pack<'a>(&mut self, raw: &'a [u8], room: &'a mut Vec<u8>) -> (Codec, &'a [u8]) {
        let Some(compressor) = &mut self.0 else { return (Codec::Plain, raw) };
        room.resize(raw.len() - raw.len() / 8, 0);
        // It fails when there is too little room, and that is the question.
        match compressor.compress_to_buffer(raw, room.as_mut_slice()) {
            Ok(length) => (Codec::Zstd, &room[..length]),
            Err(_) => (Codec::Plain, raw),
        }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Packer(zstd)" } else { "Packer(plain)" })
    }
}

/// The bytes of a block again: as many as it has to have.
pub(super) fn unpack(codec: Codec, stored: Vec<u8>, raw_bytes: usize) -> io::Result<Vec<u8>> {
    let raw = match codec {
        Codec::Plain => stored,
        Codec::Zstd => Decompressor::new()?.decompress(&stored, raw_bytes)?,
    };
    match raw.len() == raw_bytes {
        true => Ok(raw),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it has another length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_compressed_is_and_comes_back() {
        let (mut packer, mut room) = (Packer::new(true).unwrap(), Vec::new());
        let raw = b"a page of text ".repeat(300);
        let (codec, stored) = packer.pack(&raw, &mut room);
        assert!(codec == Codec::Zstd && stored.len() < 200);
        assert_eq!(unpack(codec, stored.to_vec(), raw.len()).unwrap(), raw);
        unpack(codec, stored.to_vec(), raw.len() - 1).unwrap_err();
        unpack(codec, stored.to_vec(), raw.len() + 1).unwrap_err();
    }

    #[test]
    fn what_cannot_be_compressed_stays_as_it_is() {
        let (mut packer, mut room) = (Packer::new(true).unwrap(), Vec::new());
        let mut noise = Vec::new();
        blake3::Hasher::new().finalize_xof().fill({
            noise.resize(4096, 0);
            &mut noise
        });
        assert_eq!(packer.pack(&noise, &mut room), (Codec::Plain, &noise[..]));
    }
}
