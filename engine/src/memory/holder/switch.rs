//! Dead man's switches: the kernel kills the tree when it would read zeros and nobody else can
//! see to it.
//!
//! A switch is a pipe. Its reading ends belong to the processes of the tree or to their groups
//! (`F_SETOWN` of fcntl(2)), and ask for SIGKILL (`F_SETSIG`) when something happens to the pipe,
//! as it does when the last writing end is closed. There are two:
//!
//! - *Both*: agent and holder have a writing end; it kills when both are dead.
//! - *Alone*: only the agent has one, and it is armed only while the agent knows what the holder
//!   does not know yet: a forked child whose descriptor nobody else has, a page that the program
//!   has dropped. The holder sees that it was armed, and kills the rest of the tree.
//!
//! The dead lose their descriptors from the highest number down (every kernel since 4.3; a test
//! sees to it), and what was sent to them and not yet received at the end. So a writing end has
//! a number above all others, and does not travel: it goes before the reading ends, or nobody
//! would be told, and before the userfaultfds, or a page could read as zeros before the signal.
//!
//! Children that leave their parent's group while pages are missing are in neither: of them only
//! the holder knows.

use crate::sys::fd::{SignalOwner, duplicate_above, set_owner_signal, set_signal_owner};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, getpgid, getpgrp, pipe2};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// fcntl(2), `fcntl.h`.
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;

/// What the parts are called when they are sent.
const BOTH_PIPE: &str = "both.pipe";
const BOTH_READER: &str = "both.reader";
const ALONE_PIPE: &str = "alone.pipe";
const ALONE_READER: &str = "alone.reader";

/// The agent's end of both switches.
#[derive(Debug)]
pub(super) struct Switches {
    both: Wire,
    alone: Wire,
    groups: BTreeSet<Pid>,
}

#[derive(Debug)]
struct Wire {
    /// To have it is its effect.
    _writer: OwnedFd,
    /// A reading end that is nobody's: it is opened again for each owner.
    pipe: OwnedFd,
    readers: Vec<OwnedFd>,
}

impl Switches {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { both: Wire::new()?, alone: Wire::new()?, groups: BTreeSet::new() })
    }

    /// A successor's. The writing ends of the agent that died are gone with it.
    pub(super) fn of(parts: Parts) -> io::Result<Self> {
        let (mut both, mut alone) = (Vec::new(), Vec::new());
        let (mut both_pipe, mut alone_pipe) = (None, None);
        for (name, fd) in parts.parts {
            match name.as_str() {
                BOTH_PIPE => both_pipe = Some(fd),
                ALONE_PIPE => alone_pipe = Some(fd),
                ALONE_READER => alone.push(fd),
                _ => both.push(fd),
            }
        }
        let both = Wire::of(both_pipe, both)?;
        Ok(Self { both, alone: Wire::of(alone_pipe, alone)?, groups: BTreeSet::new() })
    }

    /// What the holder must have before there is anything to hold.
    pub(super) fn unarmed(&self) -> [(&'static str, &OwnedFd); 2] {
        [(ALONE_PIPE, &self.alone.pipe), (BOTH_PIPE, &self.both.pipe)]
    }

    /// From now on this process dies with agent and holder, and so does whoever is in its group
    /// by then: also the children that it forks from now on. Returns what the holder must have.
    pub(super) fn arm(&mut self, pid: i32) -> io::Result<Vec<(&'static str, &OwnedFd)>> {
        let known = (self.both.readers.len(), self.alone.readers.len());
        let process = SignalOwner { kind: F_OWNER_PID, id: pid };
        self.both.tell(process, OFlag::O_ASYNC)?;
        self.alone.tell(process, OFlag::empty())?;
        let group = getpgid(Some(Pid::from_raw(pid)))?;
        if group != getpgrp() && group.as_raw() != 0 && self.groups.insert(group) {
            let group = SignalOwner { kind: F_OWNER_PGRP, id: group.as_raw() };
            self.both.tell(group, OFlag::O_ASYNC)?;
            self.alone.tell(group, OFlag::empty())?;
        }
        let both = self.both.readers[known.0..].iter().map(|reader| (BOTH_READER, reader));
        let alone = self.alone.readers[known.1..].iter().map(|reader| (ALONE_READER, reader));
        Ok(both.chain(alone).collect())
    }

    /// Whether the tree dies when the agent dies, whatever the holder does.
    pub(super) fn arm_alone(&self, armed: bool) -> io::Result<()> {
        self.alone.set(if armed { OFlag::O_ASYNC } else { OFlag::empty() })
    }

    /// Nothing is missing any more: the tree outlives us both.
    pub(super) fn disarm(&self) -> io::Result<()> {
        self.both.set(OFlag::empty()).and(self.arm_alone(false))
    }
}

impl Wire {
    fn new() -> io::Result<Self> {
        let (pipe, writer) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Self { _writer: on_top(writer)?, pipe, readers: Vec::new() })
    }

    fn of(pipe: Option<OwnedFd>, readers: Vec<OwnedFd>) -> io::Result<Self> {
        let pipe = pipe.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Self { _writer: writer(&pipe)?, pipe, readers })
    }

    fn tell(&mut self, owner: SignalOwner, armed: OFlag) -> io::Result<()> {
        let how = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).clone();
        let reader = reopened(&self.pipe, &how)?;
        set_owner_signal(reader.as_fd(), libc::SIGKILL)?;
        set_signal_owner(reader.as_fd(), owner)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | armed))?;
        self.readers.push(reader);
        Ok(())
    }

    fn set(&self, armed: OFlag) -> io::Result<()> {
        let set = |reader| fcntl(reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | armed)).map(drop);
        Ok(self.readers.iter().try_for_each(set)?)
    }
}

/// The holder's end: it has the parts, for a successor, and to have them. That is their effect.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The holder's own. None travels: what is sent and not yet received is closed last.
    writer: Option<OwnedFd>,
    parts: Vec<(String, OwnedFd)>,
}

impl Parts {
    pub(super) fn add(&mut self, name: &[u8], fd: OwnedFd) {
        self.parts.push((String::from_utf8_lossy(name).into_owned(), fd));
    }

    /// From now on our death is one of the two. False when there is no switch yet.
    pub(super) fn hold(&mut self) -> io::Result<bool> {
        let Some((_, pipe)) = self.parts.iter().find(|(name, _)| name == BOTH_PIPE) else {
            return Ok(false);
        };
        self.writer = Some(writer(pipe)?);
        Ok(true)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, OwnedFd)> {
        self.parts.iter()
    }

    /// The agent is dead, and there was something that only it knew.
    pub(super) fn agent_died_alone(&self) -> bool {
        let armed = |fd| fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_ASYNC != 0);
        self.parts.iter().any(|(name, fd)| name == ALONE_READER && armed(fd))
    }
}

fn writer(pipe: &OwnedFd) -> io::Result<OwnedFd> {
    on_top(reopened(pipe, OpenOptions::new().write(true))?)
}

fn reopened(pipe: &OwnedFd, how: &OpenOptions) -> io::Result<OwnedFd> {
    how.open(format!("/proc/self/fd/{}", pipe.as_raw_fd())).map(OwnedFd::from)
}

/// The same descriptor with a number that is higher than those of all others.
fn on_top(fd: OwnedFd) -> io::Result<OwnedFd> {
    /// Trees that are on their way here at once have two each.
    const ROOM: u64 = 512;
    /// The kernel's table of descriptors is as long as the highest number wants it: 128 KiB.
    const HIGHEST: u64 = 16384;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let least = limit.min(HIGHEST).saturating_sub(ROOM);
    duplicate_above(fd.as_fd(), least.try_into().unwrap_or(0))
}
