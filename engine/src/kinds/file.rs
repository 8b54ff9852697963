//! A regular file or a directory.
//!
//! Files are not moved: the destination must have the same file under the same path, from shared
//! storage or a copy. Only what no path leads to any more, a removed file, travels with the tree.

use super::locks::{self, Lock};
use super::removed::{self, Removed};
use super::{
    DescriptionImage, Findings, Kind, ObjectKey, Open, Owner, Place, Seen, Tree, nonsense,
};
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

pub(super) struct File;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    path: String,
    /// S_IFREG, S_IFDIR; S_IFLNK and the like only with O_PATH.
    #[prost(uint32, tag = "2")]
    shape: u32,
    #[prost(uint64, tag = "3")]
    size_bytes: u64,
    #[prost(message, optional, tag = "4")]
    removed: Option<Removed>,
    #[prost(message, repeated, tag = "5")]
    locks: Vec<Lock>,
}

impl Kind for File {
    const NAME: &'static str = "file";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        let ordinary = matches!(seen.shape(), libc::S_IFREG | libc::S_IFDIR);
        let place = seen.is_path_only() && seen.shape() != libc::S_IFCHR;
        seen.link.starts_with('/') && !seen.link.starts_with("/memfd:") && (ordinary || place)
    }

    fn key(seen: &Seen) -> ObjectKey {
        if seen.links == 0 {
            ObjectKey::Inode { device: seen.device, inode: seen.inode }
        } else {
            ObjectKey::Description
        }
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        if of[0].links == 0 {
            removed::examine(of[0], object, findings);
        } else if !leads_to(of[0]) {
            findings.refuse(
                object,
                format!("({}) is no longer reached by its path", of[0].link),
                "Restart the program, so that it opens what the path leads to now.",
            );
        }
        examine_locks(of, tree, findings);
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let first = &of[0];
        let removed = match first.seen.links {
            0 => Some(Removed::read(first)?),
            _ => None,
        };
        let mut locks = Vec::new();
        for (ordinal, open) in (0..).zip(of) {
            let held = locks::held(tree, open.index, ordinal);
            locks.extend(held.on("read the locks of", || open.seen.object(Self::NAME))?);
        }
        Ok(Image { removed, locks, ..describe(first.seen) })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        let seen = of[0].seen;
        let travels = seen.links == 0 || is_of_the_tree(seen, tree);
        Ok((!travels).then(|| describe(seen)))
    }

    fn check(outline: &Image, descriptions: &[DescriptionImage], owner: Owner) -> Vec<Refusal> {
        let writes = descriptions.iter().any(|one| one.access() != libc::O_RDONLY);
        match missing(outline, writes) {
            None => Vec::new(),
            Some(reason) => vec![Refusal {
                object: owner.object(Self::NAME),
                reason: format!("({}) {reason}", outline.path),
                advice: "Copy it there, or put it on storage that both hosts have.".to_owned(),
            }],
        }
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let made = match &image.removed {
            Some(removed) => removed.create(&image.path, descriptions),
            None => descriptions.iter().map(|one| open(image, one)).collect(),
        }
        .on("open", || at.object(Self::NAME))?;
        for (ordinal, fd) in made.iter().enumerate() {
            locks::take(&image.locks, ordinal, fd.as_fd())
                .on("lock", || at.object(Self::NAME))?;
        }
        Ok(made)
    }

    fn connect(
        image: &Image,
        _: &DescriptionImage,
        owner: Owner,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        locks::take_own(&image.locks, owner, Self::NAME, batch)
            .map_err(|_| nonsense(Self::NAME, "has a lock beyond the end of every file"))
    }
}

fn describe(seen: &Seen) -> Image {
    let path = match seen.links {
        0 => seen.link.strip_suffix(" (deleted)").unwrap_or(&seen.link),
        _ => &seen.link,
    };
    let size_bytes = if seen.shape() == libc::S_IFREG { seen.size } else { 0 };
    Image { path: path.to_owned(), shape: seen.shape(), size_bytes, ..Image::default() }
}

/// Whether the path still leads to the file that is open: it may have been renamed over, hidden
/// by a mount, or belong to another root.
fn leads_to(seen: &Seen) -> bool {
    let found = std::fs::symlink_metadata(&seen.link);
    found.is_ok_and(|found| (found.dev(), found.ino()) == (seen.device, seen.inode))
}

/// What /proc shows of a process in the tree is there as soon as the process is.
fn is_of_the_tree(seen: &Seen, tree: &dyn Tree) -> bool {
    let process = seen.link.strip_prefix("/proc/").and_then(|rest| rest.split('/').next());
    let pid = process.and_then(|process| process.parse().ok());
    pid.is_some_and(|pid| tree.contains_process(pid))
}

fn examine_locks(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
    for seen in of {
        let index = tree.description_at(seen.pid, seen.fd);
        if let Some(Err(error)) = index.map(|index| locks::held(tree, index, 0)) {
            let object = seen.object(File::NAME);
            findings.refuse(object, format!("is held with {error}"), "Let the program drop it.");
        }
    }
}

/// A file that is read must be the same; one that is written may have grown since it was seen.
fn missing(outline: &Image, writes: bool) -> Option<String> {
    let Ok(found) = std::fs::symlink_metadata(&outline.path) else {
        return Some("does not exist on the destination".to_owned());
    };
    if found.mode() & libc::S_IFMT != outline.shape {
        return Some("is something else on the destination".to_owned());
    }
    let fits = match writes {
        true => found.len() >= outline.size_bytes,
        false => found.len() == outline.size_bytes,
    };
    (outline.shape == libc::S_IFREG && !fits).then(|| {
        let (here, there) = (found.len(), outline.size_bytes);
        format!("has {here} bytes on the destination, not {there}")
    })
}

/// What open(2) is told again; the rest of `flags` has done its work when the file was opened.
const FLAGS: i32 = libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_DSYNC
    | libc::O_SYNC
    | libc::O_DIRECT
    | libc::O_NOATIME
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_PATH;

pub(super) fn options(description: &DescriptionImage) -> OpenOptions {
    let access = description.access();
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(description.flags & FLAGS | libc::O_NOCTTY);
    options
}

/// Looked at before it is opened: a hostile path could lead to a device.
fn open(image: &Image, description: &DescriptionImage) -> io::Result<OwnedFd> {
    verify(image, &std::fs::symlink_metadata(&image.path)?)?;
    let opened = options(description).open(&image.path)?;
    verify(image, &opened.metadata()?)?;
    Ok(opened.into())
}

fn verify(image: &Image, found: &Metadata) -> io::Result<()> {
    let is_regular = image.shape == libc::S_IFREG;
    let differs = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if found.mode() & libc::S_IFMT != image.shape {
        return differs(format!("{} is something else here", image.path));
    }
    if is_regular && found.len() != image.size_bytes {
        let (here, there) = (found.len(), image.size_bytes);
        return differs(format!("{} has {here} bytes here, not {there}", image.path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe as findings, move_after, round_trip};
    use std::fs;
    use std::io::{Read as _, Seek as _, Write as _};

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn comes_back_at_its_offset() {
        let (_folder, path) = file("0123456789");
        let mut original = fs::File::open(&path).unwrap();
        original.seek(io::SeekFrom::Start(4)).unwrap();
        let trip = round_trip(&[&original]);
        let mut copy = fs::File::from(trip.take(0));
        let _: Image = trip.unchanged();
        let mut rest = String::new();
        copy.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "456789");
    }

    #[test]
    fn goes_on_appending() {
        let (_folder, path) = file("log:");
        let original = fs::File::options().append(true).open(&path).unwrap();
        let trip = round_trip(&[&original]);
        fs::File::from(trip.take(0)).write_all(b"more").unwrap();
        let _: Image = trip.unchanged();
        assert_eq!(fs::read_to_string(path).unwrap(), "log:more");
    }

    #[test]
    fn a_directory_comes_back_too() {
        let folder = tempfile::tempdir().unwrap();
        let original = fs::File::open(folder.path()).unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image.shape, libc::S_IFDIR);
    }

    #[test]
    fn a_place_without_access_comes_back_as_one() {
        let (_folder, path) = file("");
        let original =
            fs::File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
        let trip = round_trip(&[&original]);
        let mut copy = fs::File::from(trip.take(0));
        assert_eq!(trip.before.descriptions[0].flags & libc::O_PATH, libc::O_PATH);
        assert!(copy.read(&mut [0]).is_err());
        let _: Image = trip.unchanged();
    }

    #[test]
    fn a_removed_file_comes_back_with_its_content_in_all_its_descriptions() {
        let (_folder, path) = file("nobody else has this");
        let writer = fs::File::options().write(true).open(&path).unwrap();
        let reader = fs::File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let trip = round_trip(&[&reader, &writer]);
        let (mut copy, mut second) =
            (fs::File::from(trip.take(0)), fs::File::from(trip.take(1)));
        assert_eq!(copy.metadata().unwrap().nlink(), 0);
        second.write_all(b"NOBODY").unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "NOBODY else has this");
        let _: Image = trip.unchanged();
    }

    #[test]
    fn a_path_that_leads_to_another_file_is_refused() {
        let (folder, path) = file("old");
        let original = fs::File::open(&path).unwrap();
        fs::hard_link(&path, folder.path().join("second")).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new").unwrap();
        let refusals = findings(&[&original], Rules::default()).refusals;
        assert_eq!(refusals.len(), 1, "{refusals:?}");
    }

    #[test]
    fn a_destination_with_another_size_is_refused_by_name() {
        let (_folder, path) = file("four");
        let path = path.to_str().unwrap().to_owned();
        let image = Image { path, shape: libc::S_IFREG, size_bytes: 5, ..Image::default() };
        let refusals = File::check(&image, &[DescriptionImage::default()], Owner { pid: 1, fd: 3 });
        assert!(refusals[0].to_string().contains("has 4 bytes"), "{}", refusals[0]);
        assert!(open(&image, &DescriptionImage::default()).is_err());
        let absent = Image { path: "/nonexistent/file".to_owned(), ..image };
        assert_eq!(File::check(&absent, &[], Owner { pid: 1, fd: 3 }).len(), 1);
    }

    #[test]
    fn a_flock_is_held_by_the_same_description() {
        let (_folder, path) = file("");
        let original = fs::File::open(&path).unwrap();
        original.lock_shared().unwrap();
        let image: Image = round_trip(&[&original]).unchanged();
        assert_eq!(image.locks.len(), 1);
    }

    #[test]
    fn a_posix_lock_is_taken_again_by_its_process() {
        let (_folder, path) = file("");
        let original = fs::File::options().write(true).open(&path).unwrap();
        let range = libc::flock { l_type: 1, l_whence: 0, l_start: 5, l_len: 10, l_pid: 0 };
        nix::fcntl::fcntl(&original, nix::fcntl::FcntlArg::F_SETLK(&range)).unwrap();
        let unlock = libc::flock { l_type: 2, ..range };
        let moved = move_after(&[&original], || {
            nix::fcntl::fcntl(&original, nix::fcntl::FcntlArg::F_SETLK(&unlock)).unwrap();
        });
        let (before, after) = moved.images::<Image>();
        assert_eq!(before[0].locks.len(), 1);
        assert_eq!(after[0].locks[0].range_bytes(), before[0].locks[0].range_bytes());
    }
}
