//! A descriptor that stands for a process of the tree.

use super::{DescriptionImage, Findings, Kind, Open, Place, Seen, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::os::fd::OwnedFd;

pub(super) struct Pidfd;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pid: i32,
}

/// PIDFD_THREAD (Linux 6.9) is O_EXCL, which fdinfo shows.
const FLAGS: i32 = libc::O_NONBLOCK | libc::O_EXCL;

impl Kind for Pidfd {
    const NAME: &'static str = "pidfd";
    type Image = Image;

    /// Since Linux 6.9 it has an inode of its own: "pidfd:[4711]" is not an anonymous inode then.
    fn claims(seen: &Seen) -> bool {
        seen.link == "anon_inode:[pidfd]" || seen.link.starts_with("pidfd:[")
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        match process(of[0]) {
            Some(pid) if tree.contains_process(pid) => {}
            Some(pid) if pid > 0 => findings.refuse(
                object,
                format!("stands for process {pid}, which is not in the tree"),
                "Move a tree that contains it.",
            ),
            _ => findings.refuse(
                object,
                "stands for a process that is gone",
                "Let the program close it first.",
            ),
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let pid = process(of[0].seen).filter(|&pid| pid > 0).ok_or_else(|| {
            Error::invalid("read", of[0].seen.object(Self::NAME), "its process is gone")
        })?;
        Ok(Image { pid })
    }

    /// The tree's processes are there by now, stopped.
    fn describe(image: &Image, _: &DescriptionImage) -> String {
        format!("process {}", image.pid)
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let flags = sole(Self::NAME, descriptions)?.flags & FLAGS;
        Ok(vec![sys::fd::pidfd_open(image.pid, flags).on("open", || at.object(Self::NAME))?])
    }
}

fn process(seen: &Seen) -> Option<i32> {
    seen.field("Pid")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};

    #[test]
    fn comes_back_for_the_same_process() {
        let us = std::process::id().cast_signed();
        let original = sys::fd::pidfd_open(us, libc::O_NONBLOCK).unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image.pid, us);
        assert_eq!(describe(&[&original], Rules::default()).refusals, []);
    }

    #[test]
    fn for_a_process_outside_of_the_tree_it_is_refused() {
        let original = sys::fd::pidfd_open(1, 0).unwrap();
        assert_eq!(describe(&[&original], Rules::default()).refusals.len(), 1);
    }
}
