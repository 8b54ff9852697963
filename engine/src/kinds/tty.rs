//! A terminal whose other side stays behind.
//!
//! What types into a terminal (an ssh session, an emulator) is not part of the tree, so there is
//! nothing to connect it to on another host. A rule says whether its descriptors lead to /dev/null
//! there. The controlling terminal itself is an aspect of the session.

use super::{DescriptionImage, Findings, Kind, ObjectKey, Open, Place, Seen, Terminal, Tree};
use crate::error::{Error, OnObject as _};
use nix::sys::stat::{major, minor};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

pub(super) struct Tty;

/// Only its name, for whoever reads the image.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    path: String,
}

impl Kind for Tty {
    const NAME: &'static str = "terminal";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.shape() == libc::S_IFCHR && is_terminal(seen.rdev)
    }

    fn key(seen: &Seen) -> ObjectKey {
        ObjectKey::Inode { device: seen.device, inode: seen.inode }
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let seen = of[0];
        let object = seen.object(Self::NAME);
        if master_is_inside(seen, tree) {
            let reason = format!("({}) has its controlling side in the tree", seen.link);
            findings.refuse(object, reason, "Run the program without a terminal of its own.");
        } else if tree.rules().terminal == Terminal::Refuse {
            let reason = format!("({}) leads out of the tree", seen.link);
            findings.refuse(object, reason, "Redirect it, or allow `--terminal detach`.");
        } else {
            findings.note(object, format!("({}) will lead to /dev/null", seen.link));
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        Ok(Image { path: of[0].seen.link.clone() })
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        image.path.clone()
    }

    fn create(
        _image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        descriptions.iter().map(sink).collect::<io::Result<_>>().on("make", || at.object(Self::NAME))
    }
}

/// tty(4), console(4), the old and the new pseudoterminals; 5:2 is a controlling side.
fn is_terminal(rdev: u64) -> bool {
    match major(rdev) {
        3 | 4 | 136..=143 => true,
        5 => minor(rdev) != 2,
        _ => false,
    }
}

fn master_is_inside(seen: &Seen, tree: &dyn Tree) -> bool {
    let number = minor(seen.rdev).to_string();
    (136..=143).contains(&major(seen.rdev))
        && tree.descriptions().iter().any(|other| other.field("tty-index") == Some(&*number))
}

fn sink(description: &DescriptionImage) -> io::Result<OwnedFd> {
    let access = description.access();
    let mut options = File::options();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    Ok(options.open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsFd as _, AsRawFd as _};

    fn pty() -> (File, File) {
        let open = |path: &str| File::options().read(true).write(true).open(path).unwrap();
        let master = open("/dev/ptmx");
        crate::sys::fd::unlock_terminal(master.as_fd()).unwrap();
        let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", master.as_raw_fd()));
        let number = fdinfo.unwrap().lines().find_map(|line| {
            Some(line.strip_prefix("tty-index:")?.trim().to_owned())
        });
        (master, open(&format!("/dev/pts/{}", number.unwrap())))
    }

    #[test]
    fn leads_to_null_and_is_noted_or_refused_as_the_rule_says() {
        let (_master, terminal) = pty();
        let findings = describe(&[&terminal], Rules::default());
        assert_eq!((findings.refusals.len(), findings.notes.len()), (0, 1));
        let refuse = Rules { terminal: Terminal::Refuse, ..Rules::default() };
        assert_eq!(describe(&[&terminal], refuse).refusals.len(), 1);

        let mut copy = File::from(round_trip(&[&terminal]).take(0));
        copy.write_all(b"to nobody").unwrap();
        assert_eq!(copy.read(&mut [0; 9]).unwrap(), 0);
    }

    #[test]
    fn with_its_controlling_side_in_the_tree_it_is_refused() {
        let (master, terminal) = pty();
        let refusals = describe(&[&master, &terminal], Rules::default()).refusals;
        assert_eq!(refusals.len(), 2, "both sides: {refusals:?}");
    }
}
