//! What a kind is given on the destination.

use super::{Maker, SocketCall};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What only the stage has.
pub trait Making: std::fmt::Debug {
    /// A new description of shared memory `space` (a memfd or shared anonymous memory that the
    /// stage holds), opened with these flags.
    fn open_shared_memory(&self, space: u32, flags: i32) -> Result<OwnedFd, Error>;
    /// F_SEAL_* to be put on shared memory `space` once its content is complete: a seal against
    /// writing would keep us from filling it.
    fn seal_shared_memory(&self, space: u32, seals: i32) -> Result<(), Error>;
    /// Whether a process belongs to the tree that is being made.
    fn contains_process(&self, pid: i32) -> bool;
    /// Addresses that move here with the tree. They come when it has the right to run.
    fn coming(&self) -> &[IpAddr];
    /// Makes a call in the process of that maker; when it is none of the tree, as its user.
    fn socket_call(&self, maker: &Maker, call: SocketCall<'_>) -> Result<Vec<OwnedFd>, Error>;
}

/// Our own descriptor of every description that was made, by its id.
pub trait Others {
    fn of(&self, description: u32) -> Option<BorrowedFd<'_>>;
}

/// Where an object is being made: one descriptor that it is for, and what only the stage has.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub owner: Owner,
    pub stage: &'a dyn Making,
}

impl Place<'_> {
    pub fn object(&self, kind: &'static str) -> Object {
        self.owner.object(kind)
    }
}

/// Where the destination judges an outline: the descriptor that it is for, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    pub owner: Owner,
    /// Addresses that move here with the tree. They are not here yet.
    pub coming: &'a [IpAddr],
}

impl Ground<'_> {
    pub fn object(&self, kind: &'static str) -> Object {
        self.owner.object(kind)
    }

    /// What this host lacks, each with what to do about it.
    pub(super) fn refusals(
        &self,
        kind: &'static str,
        lacking: impl IntoIterator<Item = (String, &'static str)>,
    ) -> Vec<Refusal> {
        let refusal = |(reason, advice): (String, &str)| Refusal {
            object: self.object(kind),
            reason,
            advice: advice.to_owned(),
        };
        lacking.into_iter().map(refusal).collect()
    }
}

/// The process and number through which a description is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: i32,
    pub fd: i32,
}

impl Owner {
    pub fn object(&self, kind: &'static str) -> Object {
        Object::Fd { pid: self.pid, fd: self.fd, kind }
    }
}
