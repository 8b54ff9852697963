//! A queue of bytes with a name in the file tree.

use super::content::Content;
use super::{DescriptionImage, Findings, Ground, Kind, ObjectKey, Open, Place, Seen, Tree};
use crate::error::{Error, OnObject as _};
use crate::paths;
use crate::refusal::Refusal;
use prost::{DecodeError, Message as _};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

pub(super) struct Fifo;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, required, tag = "2")]
    content: Content,
}

impl Kind for Fifo {
    const NAME: &'static str = "fifo";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.shape() == libc::S_IFIFO && seen.link.starts_with('/') && !seen.is_path_only()
    }

    fn key(seen: &Seen) -> ObjectKey {
        ObjectKey::Inode { device: seen.device, inode: seen.inode }
    }

    fn examine(of: &[&Seen], _tree: &dyn Tree, findings: &mut Findings) {
        if of[0].links == 0 {
            findings.refuse(
                of[0].object(Self::NAME),
                "has lost its name",
                "Let the program close it first.",
            );
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let reader = of.iter().find(|open| open.seen.can_read());
        let end = reader.unwrap_or(&of[0]);
        let direct = of.iter().any(|open| open.seen.flags & libc::O_DIRECT != 0);
        let content = Content::peek(end.local, reader.is_some(), direct)
            .on("copy the bytes in", || end.seen.object(Self::NAME))?;
        Ok(Image { path: end.seen.link.clone(), content })
    }

    fn outline(of: &[Open<'_>], tree: &dyn Tree) -> Result<Option<Image>, Error> {
        let whole = Self::capture(of, tree)?;
        Ok(Some(Image { content: whole.content.emptied(), ..whole }))
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        if is_fifo(&outline.path) {
            return Vec::new();
        }
        vec![Refusal {
            object: at.object(Self::NAME),
            reason: format!("needs a fifo at {} on the destination", outline.path),
            advice: "Make it there with mkfifo.".to_owned(),
        }]
    }

    fn paths(image: &[u8]) -> Result<Vec<String>, DecodeError> {
        Ok(vec![Image::decode(image)?.path])
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        make(image, descriptions).on("make", || at.object(Self::NAME))
    }
}

fn is_fifo(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// A descriptor with both ends is opened first: it never waits for anybody, and it keeps the
/// content alive until the others are open.
fn make(image: &Image, descriptions: &[DescriptionImage]) -> io::Result<Vec<OwnedFd>> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK;
    let both = paths::open(image.path.as_bytes(), libc::S_IFIFO, flags, &|_| false)?;
    image.content.fill(both.as_fd())?;
    let own = format!("/proc/self/fd/{}", both.as_raw_fd());
    descriptions.iter().map(|one| Ok(open(&own, one.access())?.into())).collect()
}

/// Without O_NONBLOCK an end would wait here for its other end.
fn open(path: &str, access: i32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::Owner;
    use super::*;
    use crate::descriptors::trip::round_trip;
    use std::io::{Read as _, Write as _};

    #[test]
    fn comes_back_by_its_name_with_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = open(path.to_str().unwrap(), libc::O_RDONLY).unwrap();
        let mut writer = open(path.to_str().unwrap(), libc::O_WRONLY).unwrap();
        writer.write_all(b"queued").unwrap();
        let captured = round_trip_content(&reader, &writer);
        assert_eq!(captured.path, path.to_str().unwrap());

        // On the destination the queue of that name is empty until it is filled.
        drop((reader, writer));
        let description = |flags| DescriptionImage { flags, ..Default::default() };
        let descriptions = [description(libc::O_RDONLY), description(libc::O_WRONLY)];
        let mut made = make(&captured, &descriptions).unwrap();
        let mut room = [0; 100];
        assert_eq!(File::from(made.remove(0)).read(&mut room).unwrap(), 6);
    }

    fn round_trip_content(reader: &File, writer: &File) -> Image {
        use prost::Message as _;
        let bytes = &round_trip(&[reader, writer]).before.objects[0].bytes;
        Image::decode(&**bytes).unwrap()
    }

    #[test]
    fn a_destination_without_the_name_is_refused() {
        let image = Image { path: "/nonexistent/queue".to_owned(), content: Content::default() };
        assert_eq!(Fifo::check(&image, &[], Ground { owner: Owner { pid: 1, fd: 0 }, coming: &[] }).len(), 1);
    }
}
