//! A queue of bytes without a name, between any number of reading and writing ends.

use super::content::Content;
use super::{DescriptionImage, Findings, Kind, ObjectKey, Open, OutsidePipe, Place, Seen, Tree};
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

pub(super) struct Pipe;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, required, tag = "1")]
    content: Content,
    /// Whoever reads it stays behind: the writers get a sink.
    #[prost(bool, tag = "2")]
    reader_stays: bool,
}

impl Kind for Pipe {
    const NAME: &'static str = "pipe";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.link.starts_with("pipe:[") && !seen.is_path_only()
    }

    fn key(seen: &Seen) -> ObjectKey {
        ObjectKey::Inode { device: seen.device, inode: seen.inode }
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let Some(end) = outside_end(of) else { return };
        let object = of[0].object(Self::NAME);
        match (tree.rules().outside_pipe, end) {
            (OutsidePipe::Refuse, _) => findings.refuse(
                object,
                "has another end outside of the tree",
                "Move the whole pipeline, or allow `--outside-pipe null`.",
            ),
            (OutsidePipe::Null, End::Read) => {
                findings.note(object, "is read outside of the tree and will lead to /dev/null");
            }
            (OutsidePipe::Null, End::Write) => {
                findings.note(object, "is written outside of the tree and will end");
            }
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let seen: Vec<_> = of.iter().map(|open| open.seen).collect();
        let reader = of.iter().find(|open| open.seen.can_read());
        let end = reader.unwrap_or(&of[0]);
        let direct = seen.iter().any(|seen| seen.flags & libc::O_DIRECT != 0);
        let content = Content::peek(end.local, reader.is_some(), direct)
            .on("copy the bytes in", || end.seen.object(Self::NAME))?;
        Ok(Image { content, reader_stays: reader.is_none() && !of.iter().any(is_orphan) })
    }

    fn describe(image: &Image, one: &DescriptionImage) -> String {
        let end = if one.access() == libc::O_RDONLY { "read" } else { "written" };
        let stays = if image.reader_stays { ", its reader was outside" } else { "" };
        format!("its end that is {end}, {} bytes in it{stays}", image.content.bytes())
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let made = if image.reader_stays { sinks(descriptions) } else { ends(image, descriptions) };
        made.on("make", || at.object(Self::NAME))
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Read,
    Write,
}

/// Which end of a pipe is missing in the tree although it is open somewhere.
fn outside_end(of: &[&Seen]) -> Option<End> {
    let reads = of.iter().any(|seen| seen.can_read());
    let writes = of.iter().any(|seen| seen.can_write());
    let end = if !reads { End::Read } else { End::Write };
    (reads != writes && other_end_is_open(of[0])).then_some(end)
}

/// A pipe says by itself that its other end is closed.
fn other_end_is_open(seen: &Seen) -> bool {
    seen.steal().is_ok_and(|local| !hung_up(local.as_fd()))
}

fn is_orphan(open: &Open<'_>) -> bool {
    hung_up(open.local)
}

/// POLLHUP: no writer is left; POLLERR: no reader is left.
fn hung_up(end: BorrowedFd<'_>) -> bool {
    sys::fd::poll(end, 0, 0).is_ok_and(|seen| seen & (libc::POLLHUP | libc::POLLERR) != 0)
}

fn sinks(descriptions: &[DescriptionImage]) -> io::Result<Vec<OwnedFd>> {
    let open = |_: &DescriptionImage| Ok(File::options().write(true).open("/dev/null")?.into());
    descriptions.iter().map(open).collect()
}

/// O_LARGEFILE as the kernel shows it; to the C library of a 64-bit host it is 0.
const LARGE_FILE: i32 = if cfg!(target_arch = "aarch64") { 0o400_000 } else { 0o100_000 };

/// The ends that pipe2(2) made have no O_LARGEFILE and are used once; all others were reopened
/// through /proc, and are again. An end that nobody wants is closed when the function ends.
fn ends(image: &Image, descriptions: &[DescriptionImage]) -> io::Result<Vec<OwnedFd>> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    image.content.fill(writer.as_fd())?;
    let any = reader.try_clone()?;
    let mut made = [(libc::O_RDONLY, Some(reader)), (libc::O_WRONLY, Some(writer))];
    let mut end = |description: &DescriptionImage| {
        let first_hand = description.flags & LARGE_FILE == 0;
        let same = |(access, _): &&mut (i32, _)| first_hand && *access == description.access();
        match made.iter_mut().find(same).and_then(|(_, end)| end.take()) {
            Some(end) => Ok(end),
            None => reopen(&any, description.access()),
        }
    };
    descriptions.iter().map(&mut end).collect()
}

fn reopen(fd: &OwnedFd, access: i32) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(libc::O_NONBLOCK);
    Ok(options.open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?.into())
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::io::{Read as _, Write as _};

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn comes_back_with_its_bytes_and_leaves_them_where_they_were() {
        let (mut reader, mut writer) = pipe();
        writer.write_all(&[7; 40_000]).unwrap();
        let trip = round_trip(&[&reader, &writer]);
        let mut copy = File::from(trip.take(0));
        let _: Image = trip.unchanged();
        let (mut here, mut there) = ([0; 50_000], [0; 50_000]);
        assert_eq!(reader.read(&mut here).unwrap(), 40_000);
        assert_eq!(copy.read(&mut there).unwrap(), 40_000);
        assert_eq!(here, there);
    }

    #[test]
    fn packets_stay_packets() {
        let (reader, mut writer) = pipe();
        nix::fcntl::fcntl(
            &writer,
            nix::fcntl::FcntlArg::F_SETFL(OFlag::O_DIRECT | OFlag::O_NONBLOCK),
        )
        .unwrap();
        writer.write_all(b"one").unwrap();
        writer.write_all(b"three").unwrap();
        let trip = round_trip(&[&reader, &writer]);
        let mut copy = File::from(trip.take(0));
        let _: Image = trip.unchanged();
        let mut room = [0; 100];
        assert_eq!(copy.read(&mut room).unwrap(), 3);
        assert_eq!(copy.read(&mut room).unwrap(), 5);
    }

    #[test]
    fn several_ends_of_one_pipe_stay_ends_of_one_pipe() {
        let (reader, writer) = pipe();
        let again = reopen(&OwnedFd::from(writer.try_clone().unwrap()), libc::O_WRONLY).unwrap();
        let trip = round_trip(&[&reader, &writer, &again]);
        let (mut copy, second) = (File::from(trip.take(0)), File::from(trip.take(2)));
        let _: Image = trip.unchanged();
        (&second).write_all(b"through the second").unwrap();
        let mut room = [0; 100];
        assert_eq!(copy.read(&mut room).unwrap(), 18);
    }

    #[test]
    fn the_capacity_is_the_same() {
        let (reader, writer) = pipe();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 19)).unwrap();
        let image: Image = round_trip(&[&reader, &writer]).unchanged();
        assert_eq!(image.content.capacity_bytes(), 1 << 19);
    }

    #[test]
    fn a_reader_without_writers_sees_the_rest_and_the_end() {
        let (reader, mut writer) = pipe();
        writer.write_all(b"rest").unwrap();
        drop(writer);
        let trip = round_trip(&[&reader]);
        let mut copy = File::from(trip.take(0));
        let _: Image = trip.unchanged();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "rest");
    }

    #[test]
    fn a_writer_to_the_outside_is_noted_or_refused_and_gets_a_sink() {
        let (_reader, writer) = pipe();
        let noted = describe(&[&writer], Rules::default());
        assert_eq!((noted.refusals.len(), noted.notes.len()), (0, 1));
        let refuse = Rules { outside_pipe: OutsidePipe::Refuse, ..Rules::default() };
        assert_eq!(describe(&[&writer], refuse).refusals.len(), 1);
        let trip = round_trip(&[&writer]);
        File::from(trip.take(0)).write_all(&[0; 1 << 20]).unwrap();
    }

    #[test]
    fn a_writer_whose_readers_are_gone_still_gets_epipe() {
        let (reader, writer) = pipe();
        drop(reader);
        let trip = round_trip(&[&writer]);
        let error = File::from(trip.take(0)).write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
