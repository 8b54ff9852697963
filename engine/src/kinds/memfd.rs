//! A file in memory without a path: memfd_create(2).
//!
//! Its content is shared memory like any other and travels with the pages, if the memory side knows
//! the inode as a *space*. One that it does not know (nobody has it mapped) carries its bytes here.

use super::{DescriptionImage, Findings, Kind, ObjectKey, Open, Place, Seen, Tree, nonsense};
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::statfs::{HUGETLBFS_MAGIC, statfs};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

pub(super) struct Memfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    name: String,
    /// F_SEAL_*.
    #[prost(int32, tag = "2")]
    seals: i32,
    /// The shared memory that holds the content, made by the stage.
    #[prost(uint32, optional, tag = "3")]
    space: Option<u32>,
    /// The content, when there is no space.
    #[prost(bytes = "vec", tag = "4")]
    content: Vec<u8>,
}

/// Without a mapping the content is part of what the freeze carries.
const UNMAPPED_BYTES_MAX: u64 = 64 << 20;

impl Kind for Memfd {
    const NAME: &'static str = "memfd";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.shape() == libc::S_IFREG && seen.link.starts_with("/memfd:")
    }

    fn key(seen: &Seen) -> ObjectKey {
        ObjectKey::Inode { device: seen.device, inode: seen.inode }
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let seen = of[0];
        let object = seen.object(Self::NAME);
        if is_huge(seen) {
            findings.refuse(object, "is made of huge pages", "Use ordinary pages for it.");
        } else if seen.size > UNMAPPED_BYTES_MAX && tree.space(seen.device, seen.inode).is_none() {
            let reason = format!("has {} bytes and is not mapped", seen.size);
            findings.refuse(object, reason, "Only 64 MiB of an unmapped one can be carried.");
        }
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        read(&of[0], tree).on("read", || of[0].seen.object(Self::NAME))
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        match image.space {
            Some(space) => format!("{}, pages of space {space}", image.name),
            None => format!("{}, {} bytes", image.name, image.content.len()),
        }
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let Some(space) = image.space else {
            return make(image, descriptions).on("make", || at.object(Self::NAME));
        };
        at.stage.seal_shared_memory(space, image.seals)?;
        descriptions.iter().map(|one| at.stage.open_shared_memory(space, one.flags)).collect()
    }
}

fn is_huge(seen: &Seen) -> bool {
    let path = format!("/proc/{}/fd/{}", seen.pid, seen.fd);
    statfs(&*path).is_ok_and(|found| found.filesystem_type() == HUGETLBFS_MAGIC)
}

fn read(open: &Open<'_>, tree: &dyn Tree) -> io::Result<Image> {
    let seen = open.seen;
    let name = seen.link.strip_prefix("/memfd:").unwrap_or_default();
    let name = name.strip_suffix(" (deleted)").unwrap_or(name).to_owned();
    let seals = fcntl(open.local, FcntlArg::F_GET_SEALS)?;
    let space = tree.space(seen.device, seen.inode);
    let content = match space {
        Some(_) => Vec::new(),
        None => content(open)?,
    };
    Ok(Image { name, seals, space, content })
}

fn content(open: &Open<'_>) -> io::Result<Vec<u8>> {
    let own = format!("/proc/self/fd/{}", open.local.as_raw_fd());
    if fs::metadata(&own)?.len() > UNMAPPED_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB"));
    }
    fs::read(own)
}

/// Sealed last, and every description is opened before: a sealed file cannot be opened for writing.
fn make(image: &Image, descriptions: &[DescriptionImage]) -> io::Result<Vec<OwnedFd>> {
    let name = CString::new(&*image.name).map_err(|_| nonsense_name())?;
    let mut file = File::from(sys::fd::memfd(&name, libc::MFD_ALLOW_SEALING)?);
    file.write_all(&image.content)?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let made = descriptions.iter().map(|one| reopen(&own, one)).collect::<io::Result<Vec<_>>>()?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(image.seals)))?;
    Ok(made)
}

fn nonsense_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, nonsense(Memfd::NAME, "has a zero in its name"))
}

fn reopen(own: &str, description: &DescriptionImage) -> io::Result<OwnedFd> {
    let access = description.access();
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(description.flags & (libc::O_APPEND | libc::O_PATH));
    Ok(options.open(own)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::round_trip;
    use std::io::{Read as _, Seek as _};

    #[test]
    fn comes_back_with_its_bytes_its_name_and_its_seals() {
        let original = sys::fd::memfd(c"frames", libc::MFD_ALLOW_SEALING).unwrap();
        let mut file = File::from(original);
        file.write_all(b"some frames").unwrap();
        file.seek(io::SeekFrom::Start(5)).unwrap();
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        let trip = round_trip(&[&file]);
        let mut copy = File::from(trip.take(0));
        let image: Image = trip.unchanged();
        assert_eq!((&*image.name, image.seals), ("frames", seals.bits()));
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "frames");
        assert!(copy.write_all(b"x").is_err());
    }

    #[test]
    fn one_that_cannot_be_sealed_stays_so() {
        let original = sys::fd::memfd(c"plain", 0).unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image.seals, libc::F_SEAL_SEAL);
    }

    #[test]
    fn a_reader_and_a_writer_stay_one_file() {
        let writer = File::from(sys::fd::memfd(c"two", 0).unwrap());
        let reader = File::open(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
        let trip = round_trip(&[&writer, &reader]);
        let (mut copy, mut second) = (File::from(trip.take(0)), File::from(trip.take(1)));
        let _: Image = trip.unchanged();
        copy.write_all(b"shared").unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
    }
}
