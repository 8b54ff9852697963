//! A regular file or a directory.
//!
//! Files are not moved: the destination must have the same file under the same path, from shared
//! storage or a copy. Only what no path leads to any more, a removed file, travels with the tree.

use super::growth::Size;
use super::locks::{self, Lock};
use super::removed::{self, Removed};
use super::{
    DescriptionImage, Findings, Ground, Kind, Making, ObjectKey, Open, Owner, Place, Seen, Tree, nonsense,
};
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::paths;
use crate::refusal::Refusal;
use prost::{DecodeError, Message as _};
use std::fs::OpenOptions;
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
    /// Tells the same file on shared storage from a copy of it; 0 for one that was removed.
    #[prost(uint64, tag = "6")]
    inode: u64,
}

/// An image without the content.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "4")]
    removed: Option<()>,
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
        Ok(Image { removed, locks: locks_of(of, tree)?, ..describe(first.seen) })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        let seen = of[0].seen;
        if seen.links == 0 {
            let removed = Some(Removed::default());
            return Ok(Some(Image { removed, ..describe(seen) }));
        }
        if is_of_the_tree(seen, tree) {
            return Ok(None);
        }
        Ok(Some(Image { locks: locks_of(of, tree)?, ..describe(seen) }))
    }

    fn check(outline: &Image, descriptions: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let refusal = |owner: Owner, reason: String, advice: &str| Refusal {
            object: owner.object(Self::NAME),
            reason: format!("({}) {reason}", outline.path),
            advice: advice.to_owned(),
        };
        if outline.removed.is_some() {
            let lacks = Removed::lacks_directory(&outline.path);
            return lacks.map(|why| refusal(at.owner, why, MAKE_DIRECTORY)).into_iter().collect();
        }
        if let Some(reason) = lacking(outline, descriptions) {
            return vec![refusal(at.owner, reason, COPY)];
        }
        let one = descriptions.first().copied().unwrap_or_default();
        locks::conflicts(&outline.locks, at.owner, || reach(outline, &one, &|_| false))
            .map(|(holder, reason)| refusal(holder, reason, locks::RELEASE))
            .collect()
    }

    /// Of one that was removed the path is only where it once was.
    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        let named = Named::decode(image)?;
        Ok(named.removed.is_none().then_some(named.path).into_iter().collect())
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        match image.removed {
            Some(_) => format!("{} (removed)", image.path),
            None => image.path.clone(),
        }
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let made = match &image.removed {
            Some(removed) => removed.create(&image.path, descriptions),
            None => descriptions.iter().map(|one| open(image, one, at.stage)).collect(),
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
    let inode = if seen.links == 0 { 0 } else { seen.inode };
    Image { path: path.to_owned(), shape: seen.shape(), size_bytes, inode, ..Image::default() }
}

fn locks_of(of: &[Open<'_>], tree: &dyn Tree) -> Result<Vec<Lock>, Error> {
    let mut locks = Vec::new();
    for (ordinal, open) in (0..).zip(of) {
        let held = locks::held(tree, open.index, ordinal);
        locks.extend(held.on("read the locks of", || open.seen.object(File::NAME))?);
    }
    Ok(locks)
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

const COPY: &str = "Copy it there, or put it on storage that both hosts have.";
const MAKE_DIRECTORY: &str = "Make that directory there.";

/// Why a file cannot be opened here as it is open on the source.
fn lacking(outline: &Image, descriptions: &[DescriptionImage]) -> Option<String> {
    let Ok(found) = std::fs::symlink_metadata(&outline.path) else {
        return Some("does not exist on the destination".to_owned());
    };
    if found.mode() & libc::S_IFMT != outline.shape {
        return Some("is something else on the destination".to_owned());
    }
    let differs = |one| size(outline, one)?.differs_while_running(&found);
    if let Some(why) = descriptions.iter().find_map(differs) {
        return Some(why);
    }
    let refused = |one| reach(outline, one, &|_| false).err();
    let error = descriptions.iter().find_map(refused)?;
    Some(format!("cannot be opened on the destination: {error}"))
}

/// Only a regular file has one that counts.
fn size(image: &Image, one: &DescriptionImage) -> Option<Size> {
    (image.shape == libc::S_IFREG).then(|| Size {
        bytes: image.size_bytes,
        inode: image.inode,
        writes: one.access() != libc::O_RDONLY,
        appends: one.flags & libc::O_APPEND != 0,
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

fn open(image: &Image, one: &DescriptionImage, stage: &dyn Making) -> io::Result<OwnedFd> {
    let opened = reach(image, one, &|pid| stage.contains_process(pid))?;
    let found = opened.metadata()?;
    let differs = size(image, one).and_then(|size| size.differs_in_the_freeze(&found));
    match differs {
        Some(why) => {
            let what = format!("{} {why}", image.path);
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
        None => Ok(opened.into()),
    }
}

/// Of a hostile path nothing is opened before it was looked at.
fn reach(
    image: &Image,
    one: &DescriptionImage,
    is_of_tree: paths::IsOfTree<'_>,
) -> io::Result<std::fs::File> {
    let flags = one.access() | one.flags & FLAGS;
    // A device or a fifo does something when it is opened, and is of another kind.
    if !matches!(image.shape, libc::S_IFREG | libc::S_IFDIR) && flags & libc::O_PATH == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is neither file nor directory"));
    }
    paths::open(image.path.as_bytes(), image.shape, flags, is_of_tree)
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{
        Bare, capture_own, describe as findings, move_after, outline_own, round_trip,
    };
    use crate::descriptors::{check, create};
    use nix::fcntl::{FcntlArg, fcntl};
    use std::fs;
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    const OWNER: Owner = Owner { pid: 1, fd: 3 };
    const GROUND: Ground<'_> = Ground { owner: OWNER, coming: &[] };
    /// F_WRLCK.
    const RANGE: libc::flock =
        libc::flock { l_type: 1, l_whence: 0, l_start: 5, l_len: 10, l_pid: 0 };

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
        let refusals = File::check(&image, &[DescriptionImage::default()], GROUND);
        assert!(refusals[0].to_string().contains("has 4 bytes"), "{}", refusals[0]);
        let refused = open(&image, &DescriptionImage::default(), &Bare).unwrap_err();
        assert!(refused.to_string().contains("has 4 bytes here"), "{refused}");
        let absent = Image { path: "/nonexistent/file".to_owned(), ..image };
        assert_eq!(File::check(&absent, &[], GROUND).len(), 1);
    }

    #[test]
    fn what_cannot_be_opened_there_as_it_is_here_is_refused_before() {
        let path = format!("/proc/{}/oom_score_adj", nix::unistd::getppid());
        let image = Image { path, shape: libc::S_IFREG, ..Image::default() };
        let refusals = File::check(&image, &[DescriptionImage::default()], GROUND);
        assert!(refusals[0].reason.contains("cannot be opened"), "{refusals:?}");
    }

    #[test]
    fn a_device_is_not_opened_in_the_name_of_a_file() {
        let path = "/dev/null".to_owned();
        let image = Image { path, shape: libc::S_IFCHR, ..Image::default() };
        let place = DescriptionImage { flags: libc::O_PATH, ..DescriptionImage::default() };
        assert_eq!(File::check(&image, &[DescriptionImage::default()], GROUND).len(), 1);
        open(&image, &DescriptionImage::default(), &Bare).unwrap_err();
        open(&image, &place, &Bare).unwrap();
    }

    #[test]
    fn a_file_that_others_append_to_is_found_grown() {
        let (_folder, path) = file("log:");
        let original = fs::File::options().append(true).open(&path).unwrap();
        let image = capture_own(&[&original]);
        let outline = outline_own(&[&original]);
        fs::write(&path, "log: more").unwrap();
        assert_eq!(check(&outline, &[]).unwrap(), []);
        create(&image, &Bare).unwrap();
        fs::write(&path, "l").unwrap();
        assert_eq!(check(&outline, &[]).unwrap().len(), 1);
        create(&image, &Bare).unwrap_err();
    }

    #[test]
    fn a_nameless_file_comes_back_with_its_content_and_can_still_be_given_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut original = nameless(folder.path());
        original.write_all(b"never had a name").unwrap();
        let trip = round_trip(&[&original]);
        assert_eq!(trip.after.descriptions, trip.before.descriptions);
        let copy = fs::File::from(trip.take(0));
        let named = folder.path().join("named");
        let own = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
        nix::unistd::linkat(nix::fcntl::AT_FDCWD, &*own, nix::fcntl::AT_FDCWD, &named, follow)
            .unwrap();
        assert_eq!(fs::read_to_string(named).unwrap(), "never had a name");
    }

    fn nameless(directory: &std::path::Path) -> fs::File {
        let mut options = fs::File::options();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory).unwrap()
    }

    #[test]
    fn a_removed_file_needs_its_directory() {
        let (folder, path) = file("");
        let original = fs::File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let outline = outline_own(&[&original]);
        assert_eq!(check(&outline, &[]).unwrap(), []);
        drop(folder);
        let refusals = check(&outline, &[]).unwrap();
        assert!(refusals[0].reason.contains("has no directory"), "{refusals:?}");
    }

    /// The original is on what would be shared storage, and has the lock.
    fn conflicts(original: &fs::File) -> Vec<Refusal> {
        check(&outline_own(&[original]), &[]).unwrap()
    }

    /// A POSIX lock would end with our duplicate of the descriptor, because it is ours as well: the
    /// scenario `locks_that_the_source_holds_on_shared_storage` has one.
    #[test]
    fn locks_that_the_destination_sees_held_are_refused_by_name() {
        type Take = fn(&fs::File);
        let cases: [(&str, Take); 2] = [
            ("exclusive flock", |file| file.lock().unwrap()),
            ("exclusive open file description lock on bytes 5 to 14", |file| {
                fcntl(file, FcntlArg::F_OFD_SETLK(&RANGE)).map(drop).unwrap();
            }),
        ];
        for (name, take) in cases {
            let (_folder, path) = file("");
            let original = fs::File::options().read(true).write(true).open(&path).unwrap();
            assert_eq!(conflicts(&original), [], "{name}");
            take(&original);
            let refusals = conflicts(&original);
            assert_eq!(refusals.len(), 1, "{name}");
            let said = refusals[0].to_string();
            let process = format!("process {}", std::process::id());
            for word in [name, &process, path.to_str().unwrap()] {
                assert!(said.contains(word), "{word} in {said}");
            }
        }
    }

    #[test]
    fn a_lock_that_both_can_have_is_in_nobodys_way() {
        let (_folder, path) = file("");
        let original = fs::File::open(&path).unwrap();
        original.lock_shared().unwrap();
        assert_eq!(conflicts(&original), []);
        let copy = fs::File::open(&path).unwrap();
        original.unlock().unwrap();
        // What was tried is not held any longer.
        copy.try_lock().unwrap();
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
        fcntl(&original, FcntlArg::F_SETLK(&RANGE)).unwrap();
        let unlock = libc::flock { l_type: 2, ..RANGE };
        let moved = move_after(&[&original], || {
            fcntl(&original, FcntlArg::F_SETLK(&unlock)).unwrap();
        });
        let (before, after) = moved.images::<Image>();
        assert_eq!(before[0].locks.len(), 1);
        assert_eq!(after[0].locks[0].range_bytes(), before[0].locks[0].range_bytes());
    }
}
