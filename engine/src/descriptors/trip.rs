//! Round trips for the tests of the kinds: descriptors of ours are captured, made again, and
//! captured once more, or moved into a child of ours at the same numbers.

use super::table::Table;
use super::{DescriptorsImage, Made, capture, connect, create, examine, finish, install};
use crate::batch::Batch;
use crate::error::Error;
use crate::kinds::{Findings, Making, Rules, Tcp};
use crate::sys;
use crate::sys::here::{Child, fork_here, run_here};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// Nothing is refused here: the tests of refusals ask [`describe`].
const LENIENT: Rules = Rules {
    terminal: crate::kinds::Terminal::Detach,
    outside_pipe: crate::kinds::OutsidePipe::Null,
    tcp: Tcp::Close,
};

pub(crate) fn us() -> i32 {
    std::process::id().cast_signed()
}

fn numbers(fds: &[&dyn AsFd]) -> Vec<i32> {
    fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect()
}

/// A stage without shared memory.
#[derive(Debug)]
pub(super) struct Bare;

impl Making for Bare {
    fn open_shared_memory(&self, space: u32, _flags: i32) -> Result<OwnedFd, Error> {
        Err(create::wrong(format!("space {space}"), "is not known here"))
    }

    fn seal_shared_memory(&self, space: u32, _seals: i32) -> Result<(), Error> {
        Err(create::wrong(format!("space {space}"), "is not known here"))
    }
}

/// What the source would say of these, if they were the whole tree.
pub(crate) fn describe(fds: &[&dyn AsFd], rules: Rules) -> Findings {
    examine(&Table::of(us(), &numbers(fds)).unwrap(), &rules)
}

pub(crate) fn capture_own(fds: &[&dyn AsFd]) -> DescriptorsImage {
    capture(&Table::of(us(), &numbers(fds)).unwrap(), &LENIENT).unwrap()
}

fn make(image: &DescriptorsImage) -> Made {
    let made = create(image, &Bare).unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    finish(image, &made).unwrap();
    made
}

#[derive(Debug)]
pub(crate) struct Trip {
    pub(crate) before: DescriptorsImage,
    pub(crate) after: DescriptorsImage,
    copies: RefCell<Vec<Option<OwnedFd>>>,
}

pub(crate) fn round_trip(fds: &[&dyn AsFd]) -> Trip {
    let before = capture_own(fds);
    let made = make(&before);
    let copies: Vec<OwnedFd> = before
        .descriptors
        .iter()
        .map(|one| made.of(one.description).unwrap().try_clone_to_owned().unwrap())
        .collect();
    drop(made);
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
    batch.call("register with", &crate::Object::Host, libc::SYS_epoll_ctl, args);
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
