//! A counter that wakes its readers.

use super::{DescriptionImage, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;

pub(super) struct Eventfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint64, tag = "1")]
    counter: u64,
    #[prost(bool, tag = "2")]
    semaphore: bool,
}

impl Kind for Eventfd {
    const NAME: &'static str = "eventfd";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.link == "anon_inode:[eventfd]"
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        parse(of[0].seen).on("understand", || of[0].seen.object(Self::NAME))
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        let of = if image.semaphore { "semaphore" } else { "counter" };
        format!("{of} at {}", image.counter)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![make(image).on("make", || at.object(Self::NAME))?])
    }
}

/// The flags make a fresh counter; eventfd2(2) takes only the low half of a count, so it is
/// written. A hostile count of 2^64-1 cannot be: EINVAL.
fn make(image: &Image) -> io::Result<OwnedFd> {
    let flags = if image.semaphore { libc::EFD_SEMAPHORE } else { 0 };
    let fd = sys::fd::eventfd(0, flags)?;
    if image.counter > 0 {
        nix::unistd::write(&fd, &image.counter.to_ne_bytes())?;
    }
    Ok(fd)
}

/// The count is hexadecimal; the semaphore flag is newer than Linux 6.5.
fn parse(seen: &Seen) -> io::Result<Image> {
    let counter = seen
        .field("eventfd-count")
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no eventfd-count"))?;
    Ok(Image { counter, semaphore: seen.field("eventfd-semaphore") == Some("1") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::round_trip;

    #[test]
    fn comes_back_with_its_count() {
        let counter = make(&Image { counter: 0xdead_beef_0042, semaphore: false }).unwrap();
        let image: Image = round_trip(&[&counter]).unchanged();
        assert_eq!(image, Image { counter: 0xdead_beef_0042, semaphore: false });
    }

    #[test]
    fn stays_a_semaphore() {
        let counter = make(&Image { counter: 3, semaphore: true }).unwrap();
        let image: Image = round_trip(&[&counter]).unchanged();
        assert_eq!(image, Image { counter: 3, semaphore: true });
    }
}
