//! A unix socket without a name and without a peer.

use super::options::{Options, Shape};
use super::{DescriptionImage, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use std::io;
use std::os::fd::OwnedFd;

pub(super) struct Unnamed;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, required, tag = "2")]
    options: Options,
}

impl Kind for Unnamed {
    const NAME: &'static str = "unconnected unix socket";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            let unix = socket.unix.as_ref();
            !socket.listening
                && unix.is_some_and(|unix| unix.peer.is_none() && unix.name.is_empty())
        })
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let kind = of[0].seen.socket.as_ref().map_or(0, |socket| socket.kind);
        let options = Options::read(of[0].local, shape(kind))
            .on("read the options of", || of[0].seen.object(Self::NAME))?;
        Ok(Image { kind, options })
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

fn shape(kind: i32) -> Shape {
    Shape { domain: libc::AF_UNIX, kind, protocol: 0 }
}

fn make(image: &Image) -> io::Result<OwnedFd> {
    image.options.socket(shape(image.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::round_trip;

    #[test]
    fn comes_back_as_what_it_is() {
        let original = shape(libc::SOCK_DGRAM).socket().unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image.kind, libc::SOCK_DGRAM);
    }
}
