//! A character device that is the same on every host: /dev/null, zero, full, random, urandom.

use super::{DescriptionImage, Ground, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::paths;
use crate::refusal::Refusal;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

pub(super) struct Device;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint32, tag = "2")]
    minor: u32,
}

/// Memory devices, `mem(4)`, whose state is nothing but their number.
const MAJOR: u64 = 1;
const MINORS: [u64; 5] = [3, 5, 7, 8, 9];

impl Kind for Device {
    const NAME: &'static str = "device";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.shape() == libc::S_IFCHR && is_stateless(seen.rdev)
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let seen = of[0].seen;
        let minor = u32::try_from(nix::sys::stat::minor(seen.rdev)).unwrap_or(u32::MAX);
        Ok(Image { path: seen.link.clone(), minor })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        match is_here(outline) {
            true => Vec::new(),
            false => vec![Refusal {
                object: at.object(Self::NAME),
                reason: format!("needs the same device at {} on the destination", outline.path),
                advice: "Make it there with mknod.".to_owned(),
            }],
        }
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        image.path.clone()
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let description = sole(Self::NAME, descriptions)?;
        Ok(vec![open(image, description).on("open", || at.object(Self::NAME))?])
    }
}

fn is_stateless(rdev: u64) -> bool {
    nix::sys::stat::major(rdev) == MAJOR && MINORS.contains(&nix::sys::stat::minor(rdev))
}

fn is_here(image: &Image) -> bool {
    std::fs::metadata(&image.path).is_ok_and(|found| {
        found.file_type().is_char_device()
            && is_stateless(found.rdev())
            && nix::sys::stat::minor(found.rdev()) == u64::from(image.minor)
    })
}

/// Looked at before it is opened: opening a hostile path could wait, or rewind a tape.
fn open(image: &Image, description: &DescriptionImage) -> io::Result<OwnedFd> {
    if !is_here(image) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its path leads to another device"));
    }
    let flags = description.access() | description.flags & libc::O_PATH;
    let opened = paths::open(image.path.as_bytes(), libc::S_IFCHR, flags, &|_| false)?;
    let minor = nix::sys::stat::minor(opened.metadata()?.rdev());
    if minor != u64::from(image.minor) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its path leads to another device"));
    }
    Ok(opened.into())
}

#[cfg(test)]
mod tests {
    use super::super::Owner;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    #[test]
    fn null_stays_null_and_zero_stays_zero() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let zero = File::open("/dev/zero").unwrap();
        let trip = round_trip(&[&null, &zero]);
        File::from(trip.take(0)).write_all(b"x").unwrap();
        let mut room = [1; 9];
        File::from(trip.take(1)).read_exact(&mut room).unwrap();
        assert_eq!(room, [0; 9]);
        assert_eq!(trip.before.objects[0].bytes, trip.after.objects[0].bytes);
        assert_eq!(trip.before.objects[1].bytes, trip.after.objects[1].bytes);
    }

    #[test]
    fn another_device_is_refused_by_name() {
        let log = File::open("/dev/kmsg").unwrap();
        let refusals = describe(&[&log], super::super::Rules::default()).refusals;
        assert!(refusals[0].to_string().contains("/dev/kmsg"), "{}", refusals[0]);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let image = Image { path: "/dev/zero".to_owned(), minor: 3 };
        assert_eq!(Device::check(&image, &[], Ground { owner: Owner { pid: 1, fd: 0 }, coming: &[] }).len(), 1);
    }
}
