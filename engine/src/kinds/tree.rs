//! What a kind is shown on the source.

use super::{Queued, Rules, Seen};
use std::os::fd::BorrowedFd;

/// What makes several descriptions one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// Every description is an object of its own.
    Description,
    /// All descriptions of this inode are one object (both ends of a pipe).
    Inode { device: u64, inode: u64 },
    /// Several inodes are one object (a socket pair: the smaller inode number).
    Named(String),
}

/// A description under capture, with our own duplicate of it.
#[derive(Debug)]
pub struct Open<'a> {
    pub seen: &'a Seen,
    pub local: BorrowedFd<'a>,
    /// Its place in the tree's descriptions.
    pub index: usize,
}

/// Why the tree had better not stand still at this moment, but in the next perhaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    pub why: String,
    /// The tree cannot move before it is over. Otherwise nobody waits for it longer than for a while.
    pub is_vital: bool,
}

/// The whole tree, as far as a kind may need it to judge one object.
pub trait Tree {
    fn rules(&self) -> &Rules;
    fn contains_process(&self, pid: i32) -> bool;
    /// Every description in the tree (before the freeze: as last seen).
    fn descriptions(&self) -> &[Seen];
    /// All (pid, fd) that refer to the description at this index of `descriptions`.
    fn descriptors(&self, description: usize) -> &[(i32, i32)];
    /// The description behind a descriptor, as its index in `descriptions`.
    fn description_at(&self, pid: i32, fd: i32) -> Option<usize>;
    /// Whether the descriptor is closed on exec; false when there is none.
    fn is_close_on_exec(&self, pid: i32, fd: i32) -> bool;
    /// The `lock` lines in the fdinfo of one descriptor: a POSIX lock belongs to a process, so
    /// two descriptors of one description can have different ones.
    fn lock_lines(&self, pid: i32, fd: i32) -> &[String];
    /// How far the clocks of a process are ahead of ours.
    fn clock_shifts(&self, pid: i32) -> ClockShifts;
    /// The shared memory that travels by itself, if this inode is one.
    fn space(&self, device: u64, inode: u64) -> Option<u32>;
    /// What is queued in a socket that has descriptors in flight, once the tree stands still.
    fn carried(&self, description: usize) -> Option<&[Queued]>;
}

/// How far the clocks of a process are ahead of our own, when its time namespace is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockShifts {
    pub monotonic_ns: i64,
    pub boottime_ns: i64,
}
