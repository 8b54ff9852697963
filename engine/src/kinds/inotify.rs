//! A watch over files and directories.
//!
//! Events that are queued cannot be looked at without taking them, nor put back: they are lost, and
//! a note says so. Programs have to live with lost events anyway (IN_Q_OVERFLOW).

use super::{DescriptionImage, Findings, Ground, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::paths;
use crate::refusal::Refusal;
use crate::sys;
use prost::{DecodeError, Message as _};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

pub(super) struct Inotify;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    watches: Vec<Watch>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Watch {
    #[prost(int32, tag = "1")]
    number: i32,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(uint32, tag = "3")]
    mask: u32,
}

impl Kind for Inotify {
    const NAME: &'static str = "inotify";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        matches!(&*seen.link, "anon_inode:inotify" | "anon_inode:[inotify]")
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        let object = || of[0].object(Self::NAME);
        if let Err(error) = watches(of[0]) {
            let reason = format!("watches what has no path: {error}");
            findings.refuse(object(), reason, "Let the program remove that watch.");
        }
        let queued = of[0].steal().and_then(|local| sys::fd::readable_bytes(local.as_fd()));
        if queued.is_ok_and(|bytes| bytes > 0) {
            findings.note(object(), "has queued events, which are lost unless read before");
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let seen = of[0].seen;
        let watches = watches(seen).on("find what is watched by", || seen.object(Self::NAME))?;
        Ok(Image { watches })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        Self::capture(of, tree).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let absent = |watch: &&Watch| std::fs::symlink_metadata(&watch.path).is_err();
        outline
            .watches
            .iter()
            .filter(absent)
            .map(|watch| Refusal {
                object: at.object(Self::NAME),
                reason: format!("watches {}, which is not on the destination", watch.path),
                advice: "Make it there first.".to_owned(),
            })
            .collect()
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        Ok(Image::decode(image)?.watches.into_iter().map(|watch| watch.path).collect())
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

/// In the order of their numbers, because one that is taken moves on to the next free number.
fn make(image: &Image) -> io::Result<OwnedFd> {
    let inotify = sys::fd::inotify()?;
    for watch in &image.watches {
        sys::fd::set_next_watch(inotify.as_fd(), watch.number)?;
        // Looked at so that it is found out whether a magic link is on the way.
        paths::look(watch.path.as_bytes())?;
        let path = CString::new(&*watch.path).map_err(|_| io::ErrorKind::InvalidData)?;
        // The kernel shows the inode that is watched, so links must not be followed again.
        let mask = watch.mask | libc::IN_DONT_FOLLOW;
        if sys::fd::add_watch(inotify.as_fd(), &path, mask)? != watch.number {
            let why = format!("{} is watched twice", watch.path);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    }
    Ok(inotify)
}

fn watches(seen: &Seen) -> io::Result<Vec<Watch>> {
    let mut watches = seen
        .fdinfo
        .lines()
        .filter_map(|line| line.strip_prefix("inotify "))
        .map(watch)
        .collect::<io::Result<Vec<_>>>()?;
    watches.sort_unstable_by_key(|watch| watch.number);
    Ok(watches)
}

/// "wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1
/// f_handle:7e9e0000640d1b6c", all hexadecimal: proc(5).
fn watch(line: &str) -> io::Result<Watch> {
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
            .ok_or_else(|| io::Error::other(format!("the watch {line:?} has no {name}")))
    };
    let hexadecimal = |name: &str| {
        u64::from_str_radix(field(name)?, 16).map_err(|_| io::Error::other(format!("bad {name}")))
    };
    let number = i32::try_from(hexadecimal("wd")?).map_err(io::Error::other)?;
    let kind = i32::try_from(hexadecimal("fhandle-type")?).map_err(io::Error::other)?;
    let mask = u32::try_from(hexadecimal("mask")?).map_err(io::Error::other)?;
    let handle = bytes(field("f_handle")?).ok_or_else(|| io::Error::other("bad f_handle"))?;
    let path = path(hexadecimal("sdev")?, kind, &handle)?;
    Ok(Watch { number, path, mask })
}

pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn path(device: u64, kind: i32, handle: &[u8]) -> io::Result<String> {
    let mount = File::open(mount_of(device)?)?;
    let place = sys::fd::open_by_handle(mount.as_fd(), kind, handle)?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    path.into_os_string().into_string().map_err(|_| io::Error::other("a path that is not UTF-8"))
}

/// Where a file system is mounted. The kernel's number of a device has twenty bits of minor.
fn mount_of(device: u64) -> io::Result<String> {
    let wanted = format!("{}:{}", device >> 20, device & 0xf_ffff);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.len() > 4 && words[2] == wanted)
        .map(|words| words[4].to_owned())
        .ok_or_else(|| io::Error::other(format!("device {wanted} is not mounted here")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};

    fn add(inotify: &OwnedFd, path: &std::path::Path) -> i32 {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mask = libc::IN_CREATE | libc::IN_DELETE_SELF;
        sys::fd::add_watch(inotify.as_fd(), &path, mask).unwrap()
    }

    #[test]
    fn watches_the_same_under_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let second = folder.path().join("second");
        std::fs::create_dir(&second).unwrap();
        let inotify = sys::fd::inotify().unwrap();
        sys::fd::set_next_watch(inotify.as_fd(), 40).unwrap();
        assert_eq!(add(&inotify, &second), 40);
        sys::fd::set_next_watch(inotify.as_fd(), 7).unwrap();
        assert_eq!(add(&inotify, folder.path()), 7);
        let trip = round_trip(&[&inotify]);
        let copy = trip.take(0);
        let image: Image = trip.unchanged();
        assert_eq!(image.watches[1].path, second.to_str().unwrap());

        std::fs::write(folder.path().join("new"), "").unwrap();
        let mut event = [0; 64];
        assert!(nix::unistd::read(&copy, &mut event).unwrap() > 0);
        assert_eq!(i32::from_ne_bytes(event[..4].try_into().unwrap()), 7);
    }

    #[test]
    fn queued_events_are_noted() {
        let folder = tempfile::tempdir().unwrap();
        let inotify = sys::fd::inotify().unwrap();
        add(&inotify, folder.path());
        assert_eq!(describe(&[&inotify], super::super::Rules::default()).notes.len(), 0);
        std::fs::write(folder.path().join("new"), "").unwrap();
        assert_eq!(describe(&[&inotify], super::super::Rules::default()).notes.len(), 1);
    }
}
