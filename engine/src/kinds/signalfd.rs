//! A descriptor that reads signals. What is pending belongs to the process, not to it.

use super::{DescriptionImage, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::os::fd::OwnedFd;

pub(super) struct Signalfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Bit 0 is signal 1.
    #[prost(uint64, tag = "1")]
    signals: u64,
}

impl Kind for Signalfd {
    const NAME: &'static str = "signalfd";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.link == "anon_inode:[signalfd]"
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let seen = of[0].seen;
        let mask = seen.field("sigmask").and_then(|text| u64::from_str_radix(text, 16).ok());
        let signals = mask.ok_or_else(|| {
            Error::invalid("understand", seen.object(Self::NAME), "no sigmask in its fdinfo")
        })?;
        Ok(Image { signals })
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        let is_in = |signal: &u32| image.signals >> (signal - 1) & 1 == 1;
        let signals: Vec<String> =
            (1..=u64::BITS).filter(is_in).map(|signal| signal.to_string()).collect();
        format!("signals {}", signals.join(" "))
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![sys::fd::signalfd(image.signals).on("make", || at.object(Self::NAME))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::round_trip;

    #[test]
    fn comes_back_with_its_signals() {
        let signals = 1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGUSR1 - 1) | 1 << 63;
        let original = sys::fd::signalfd(signals).unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image, Image { signals });
    }
}
