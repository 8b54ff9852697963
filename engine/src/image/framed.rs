//! A file that is one message: it is there whole, or it is refused.
//!
//! ```text
//!  0  magic    8 bytes   "migrate" and a zero
//!  8  what     8 bytes   which file of an image this is, padded with zeros
//! 16  version  u32       of the format
//! 20           u32       zero
//! 24  length   u64       bytes of the message
//! 32  message
//!     digest   32 bytes  BLAKE3 of everything before
//! ```
//!
//! Little-endian. In a sealed image this is what age encrypts. The digest finds what a disk has changed; it is not a signature.

use super::file::{Input, Output};
use super::keys::Recipients;
use crate::error::{Error, Object, OnObject as _};
use std::path::Path;

const MAGIC: &[u8; 8] = b"migrate\0";
const HEADER_BYTES: usize = 32;
const DIGEST_BYTES: usize = 32;

/// The newest format that is known here, and the one that is written.
pub const VERSION: u32 = 1;
/// The oldest that is still read.
pub(super) const VERSION_MIN: u32 = 1;

/// Larger than any tree's, and small enough to be read into memory.
const BYTES_MAX: u64 = 1 << 30;

/// BLAKE3 of a file's content.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// Writes a new file and waits until the disk has it.
pub(super) fn write(
    path: &Path,
    recipients: &Recipients,
    what: &str,
    message: &[u8],
) -> Result<Digest, Error> {
    let bytes = encode(what, message);
    let object = || Object::File { path: path.display().to_string() };
    if bytes.len() as u64 > BYTES_MAX {
        let why =
            format!("it would have {} MiB, and nobody reads more than 1024", bytes.len() >> 20);
        return Err(Error::invalid("write", object(), why));
    }
    let mut file = Output::create(path, recipients)?;
    file.append(&bytes).and_then(|()| file.finish()).on("write", object)?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// What a file holds that is one message.
pub(super) struct Framed {
    pub(super) message: Vec<u8>,
    /// Of the whole file.
    pub(super) digest: Digest,
    /// In which it is written.
    pub(super) version: u32,
}

pub(super) fn read(file: &Input, what: &str) -> Result<Framed, Error> {
    let bytes = file.read(BYTES_MAX)?;
    let message = decode(what, &bytes).map_err(|why| Error::invalid("read", file.object(), why))?;
    let (message, digest) = (message.to_vec(), *blake3::hash(&bytes).as_bytes());
    Ok(Framed { message, digest, version: version_of(&bytes) })
}

/// 0 of one that is cut off before it.
fn version_of(bytes: &[u8]) -> u32 {
    bytes.get(16..20).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn encode(what: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + message.len() + DIGEST_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&padded(what));
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(message.len() as u64).to_le_bytes());
    bytes.extend_from_slice(message);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

pub(super) fn decode<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or("it is cut off before the end of its header")?;
    if &header[..8] != MAGIC {
        return Err("it is not of an image of migrate".to_owned());
    }
    let version = version_of(bytes);
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(format!(
            "its format is version {version}, and here {VERSION_MIN} to {VERSION} are known"
        ));
    }
    let length = u64::from_le_bytes(header[24..32].try_into().unwrap_or_default());
    let expected = usize::try_from(length).ok().and_then(|n| n.checked_add(DIGEST_BYTES));
    if expected != Some(rest.len()) {
        return Err(format!("it has not the length that its header says ({length})"));
    }
    let (message, digest) = rest.split_at(rest.len() - DIGEST_BYTES);
    if blake3::hash(&bytes[..bytes.len() - DIGEST_BYTES]).as_bytes() != digest {
        return Err("its content was changed since it was written".to_owned());
    }
    // After the digest: a flipped bit is a flipped bit, and not another file.
    if header[8..16] != padded(what) || header[20..24] != [0; 4] {
        return Err(format!("it is not the {what} of an image"));
    }
    Ok(message)
}

fn padded(what: &str) -> [u8; 8] {
    let mut name = [0; 8];
    name[..what.len()].copy_from_slice(what.as_bytes());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_it_can_change_unnoticed() {
        let whole = encode("index", b"some message");
        assert_eq!(decode("index", &whole).unwrap(), b"some message");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            decode("index", &changed).expect_err("a byte was changed");
        }
        for length in 0..whole.len() {
            decode("index", &whole[..length]).expect_err("it was cut off");
        }
        assert!(decode("tree", &whole).unwrap_err().contains("tree"));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut newer = encode("index", b"");
        newer[16] = 9;
        assert!(decode("index", &newer).unwrap_err().contains("version 9"));
    }
}
