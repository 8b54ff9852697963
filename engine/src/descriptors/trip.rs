//! Round trips for the tests of the kinds: descriptors of ours are captured, made again, and
//! captured once more, or moved into a child of ours at the same numbers.

use super::table::Table;
use super::{
    Awaiting, DescriptorsImage, Made, capture, connect, create, examine, finish, install, outline,
};
use crate::batch::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{Findings, Maker, Making, Others as _, OutsideUnix, Rules, SocketCall, Tcp};
use crate::sys;
use crate::sys::here::{Child, fork_here, run_here};
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// Nothing is refused here: the tests of refusals ask [`describe`].
const LENIENT: Rules = Rules {
    terminal: crate::kinds::Terminal::Detach,
    outside_pipe: crate::kinds::OutsidePipe::Null,
    tcp: Tcp::Close,
    outside_unix: OutsideUnix::Close,
};

pub(crate) fn us() -> i32 {
    std::process::id().cast_signed()
}

fn numbers(fds: &[&dyn AsFd]) -> Vec<i32> {
    fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect()
}

/// A stage without shared memory.
#[derive(Debug)]
pub(crate) struct Bare;

impl Making for Bare {
    fn open_shared_memory(&self, space: u32, _flags: i32) -> Result<OwnedFd, Error> {
        Err(create::wrong(format!("space {space}"), "is not known here"))
    }

    fn seal_shared_memory(&self, space: u32, _seals: i32) -> Result<(), Error> {
        Err(create::wrong(format!("space {space}"), "is not known here"))
    }

    fn contains_process(&self, pid: i32) -> bool {
        pid == us()
    }

    fn coming(&self) -> &[IpAddr] {
        &[]
    }

    fn socket_call(&self, maker: &Maker, call: SocketCall<'_>) -> Result<Vec<OwnedFd>, Error> {
        maker.make_outside(call).on("make", || Object::Process { pid: maker.pid })
    }
}

/// These as the descriptors of a whole tree.
pub(crate) fn look(fds: &[&dyn AsFd]) -> Table {
    Table::of(us(), &numbers(fds)).unwrap()
}

/// What the source would say of these, if they were the whole tree.
pub(crate) fn describe(fds: &[&dyn AsFd], rules: Rules) -> Findings {
    examine(&look(fds), &rules)
}

pub(crate) fn capture_by(fds: &[&dyn AsFd], rules: Rules) -> Result<DescriptorsImage, Error> {
    capture(&look(fds), &rules)
}

pub(crate) fn outline_by(fds: &[&dyn AsFd], rules: Rules) -> DescriptorsImage {
    outline(&look(fds), &rules).unwrap()
}

pub(crate) fn capture_own(fds: &[&dyn AsFd]) -> DescriptorsImage {
    capture_by(fds, LENIENT).unwrap()
}

pub(crate) fn outline_own(fds: &[&dyn AsFd]) -> DescriptorsImage {
    outline(&look(fds), &LENIENT).unwrap()
}

/// What an image describes, made here in its order, with what is left to be done when it may run.
pub(crate) fn make_at(
    image: &DescriptorsImage,
    coming: &[IpAddr],
) -> Result<(Vec<OwnedFd>, Vec<Awaiting>), Error> {
    let made = create(image, &Expecting(coming.to_vec()))?;
    let awaiting = made.awaiting_life(image)?;
    let fd = |one: &super::DescriptorImage| made.of(one.description).unwrap().try_clone_to_owned();
    Ok((image.descriptors.iter().map(|one| fd(one).unwrap()).collect(), awaiting))
}

/// A stage to which addresses come.
#[derive(Debug)]
struct Expecting(Vec<IpAddr>);

impl Making for Expecting {
    fn open_shared_memory(&self, space: u32, flags: i32) -> Result<OwnedFd, Error> {
        Bare.open_shared_memory(space, flags)
    }

    fn seal_shared_memory(&self, space: u32, seals: i32) -> Result<(), Error> {
        Bare.seal_shared_memory(space, seals)
    }

    fn contains_process(&self, pid: i32) -> bool {
        Bare.contains_process(pid)
    }

    fn coming(&self) -> &[IpAddr] {
        &self.0
    }

    fn socket_call(&self, maker: &Maker, call: SocketCall<'_>) -> Result<Vec<OwnedFd>, Error> {
        Bare.socket_call(maker, call)
    }
}

/// Copies of these, made once they are closed: of names there can be but one.
pub(crate) fn make_after(originals: Vec<OwnedFd>) -> Vec<OwnedFd> {
    let fds: Vec<&dyn AsFd> = originals.iter().map(|fd| fd as &dyn AsFd).collect();
    let image = capture_own(&fds);
    drop(originals);
    copies_of(&image)
}

pub(crate) fn copies_of(image: &DescriptorsImage) -> Vec<OwnedFd> {
    let made = make(image);
    let copy = |id| made.of(id).unwrap().try_clone_to_owned().unwrap();
    image.descriptors.iter().map(|one| copy(one.description)).collect()
}

fn make(image: &DescriptorsImage) -> Made {
    let made = create(image, &Bare).unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    finish(image, &made).unwrap();
    made
}

/// What comes of making an image whose first object was changed.
pub(crate) fn make_changed<I: prost::Message + Default>(
    good: &DescriptorsImage,
    change: impl Fn(&mut I),
) -> Result<(), Error> {
    let mut image = good.clone();
    let mut object = I::decode(&*image.objects[0].bytes).unwrap();
    change(&mut object);
    image.objects[0].bytes = object.encode_to_vec();
    create(&image, &Bare).map(drop)
}

#[derive(Debug)]
pub(crate) struct Trip {
    pub(crate) before: DescriptorsImage,
    pub(crate) after: DescriptorsImage,
    copies: RefCell<Vec<Option<OwnedFd>>>,
}

pub(crate) fn round_trip(fds: &[&dyn AsFd]) -> Trip {
    let before = capture_own(fds);
    let copies = copies_of(&before);
    let fds: Vec<&dyn AsFd> = copies.iter().map(|copy| copy as &dyn AsFd).collect();
    let after = capture_own(&fds);
    Trip { before, after, copies: RefCell::new(copies.into_iter().map(Some).collect()) }
}

impl Trip {
    /// The copy of the descriptor at that place of the list.
    pub(crate) fn take(&self, place: usize) -> OwnedFd {
        self.copies.borrow_mut()[place].take().unwrap()
    }

    /// The image of the first object, after all of them proved to be the same.
    pub(crate) fn unchanged<I: prost::Message + Default + std::fmt::Debug>(&self) -> I {
        let decode = |image: &DescriptorsImage| -> Vec<I> {
            image.objects.iter().map(|object| I::decode(&*object.bytes).unwrap()).collect()
        };
        let (before, after) = (decode(&self.before), decode(&self.after));
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(self.before.descriptions, self.after.descriptions);
        before.into_iter().next().unwrap()
    }
}

/// Descriptors of ours before, and those of a child at the same numbers after.
pub(crate) struct Move {
    before: DescriptorsImage,
    after: DescriptorsImage,
}

/// Where our pidfd is in the child: above every number that a test needs.
const AGENT: i32 = 900;

pub(crate) fn move_to_child(fds: &[&dyn AsFd]) -> Move {
    move_after(fds, || ())
}

/// `release` runs between the capture and the move, to let go of what only one can have.
pub(crate) fn move_after(fds: &[&dyn AsFd], release: impl FnOnce()) -> Move {
    let numbers = numbers(fds);
    let before = capture_own(fds);
    release();
    let made = make(&before);
    let child = stub(&before, &made, us());
    let after = capture(&Table::of(child.pid(), &numbers).unwrap(), &LENIENT).unwrap();
    Move { before, after }
}

impl Move {
    /// The images of all objects, before and after.
    pub(crate) fn images<I: prost::Message + Default>(&self) -> (Vec<I>, Vec<I>) {
        let decode = |image: &DescriptorsImage| -> Vec<I> {
            image
                .objects
                .iter()
                .map(|object| I::decode(&*object.bytes).unwrap_or_default())
                .collect()
        };
        (decode(&self.before), decode(&self.after))
    }
}

pub(crate) fn add_to_epoll(epoll: &OwnedFd, file: &OwnedFd, events: u32, word: u64) {
    add_number(epoll, file.as_raw_fd(), events, word);
}

pub(crate) fn add_number(epoll: &OwnedFd, number: i32, events: u32, word: u64) {
    let mut bytes = events.to_ne_bytes().to_vec();
    bytes.extend(word.to_ne_bytes());
    let mut batch = Batch::new();
    let event = batch.bytes(&bytes);
    let args = crate::args![epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, number, event];
    batch.call("register with", &Object::Host, libc::SYS_epoll_ctl, args);
    run_here(&batch).check(&batch).unwrap();
}

/// A child of ours that has put the descriptors of one process of an image into its own table, and
/// has nothing else open.
pub(super) fn stub(image: &DescriptorsImage, made: &Made, pid: i32) -> Child {
    fork_here(|| {
        let agent = sys::fd::pidfd_open(nix::unistd::getppid().as_raw(), 0)?;
        nix::fcntl::fcntl(&agent, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(AGENT))?;
        drop(agent);
        let mut batch = Batch::new();
        install(image, made, pid, AGENT, &mut batch)
            .and_then(|()| connect(image, pid, &mut batch))
            .map_err(io::Error::other)?;
        batch.try_call(libc::SYS_close, crate::args![AGENT]);
        let answers = run_here(&batch);
        let readable = |error: Error| io::Error::other(format!("{error}: {}", error.source));
        answers.check(&batch).map_err(readable)
    })
}
