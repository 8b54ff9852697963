//! The holder's own life: attended by an agent, orphaned, and its end.

use super::switch::Parts;
use super::tree::Tree;
use super::{Kept, limit_waits, tag};
use crate::error::{Error, Object, OnObject as _};
use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How the holder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An agent said that nothing is missing any more.
    Released,
    /// No agent came back in time: the tree is dead.
    Killed,
}

/// Holds until it is released, or until no agent came for `grace`. The agent that started this
/// process is at the other end of standard input; successors come to the socket at `path`.
pub fn run(path: &Path, grace: Duration) -> Result<End, Error> {
    let host = || Object::Host;
    sys::holder::ignore_polite_signals().on("ignore signals on", host)?;
    raise_descriptor_limit().on("raise the number of descriptors on", host)?;
    let socket = io::stdin().as_fd().try_clone_to_owned().on("take the socket to", host)?;
    let agent = Agent::new(socket).on("watch the agent on", host)?;
    let door = Door::open(path).on("listen for agents at", || file(path))?;
    let mut keep = Keep { switch: Parts::default(), door, kept: Vec::new(), tree: Tree::default() };
    keep.receive_switch(&agent).on("take the switch to", host)?;
    sys::holder::send(agent.socket.as_fd(), &[tag::READY], None).on("greet the agent on", host)?;
    keep.live(agent, grace).on("hold userfaultfds on", host)
}

#[derive(Debug)]
struct Keep {
    /// The first to be dropped: as when we are killed, the tree dies before its descriptors.
    switch: Parts,
    door: Door,
    kept: Vec<Kept>,
    tree: Tree,
}

impl Keep {
    fn live(&mut self, mut agent: Agent, grace: Duration) -> io::Result<End> {
        loop {
            if self.attend(&agent)? == Attended::Released {
                return Ok(End::Released);
            }
            drop(agent);
            if self.switch.agent_died_alone() {
                tracing::warn!("the agent died with news of the tree that nobody else has");
                break;
            }
            match self.wait_for_successor(grace)? {
                Some(successor) => agent = successor,
                None => break,
            }
        }
        self.tree.kill(&self.kept);
        Ok(End::Killed)
    }

    /// Until the agent dies or says that it is done.
    fn attend(&mut self, agent: &Agent) -> io::Result<Attended> {
        loop {
            let ready = wait(&[&agent.socket, &agent.pidfd, &self.door.socket], None)?;
            if ready[2] {
                // There is an agent. Two that serve one tree would not know of each other.
                drop(self.door.accept()?);
            }
            if ready[0] || ready[1] {
                match self.read(agent)? {
                    Attended::Still if !ready[1] => {}
                    Attended::Still => return Ok(Attended::Alone),
                    ended => return Ok(ended),
                }
            }
        }
    }

    /// Everything that was said, also by an agent that is dead by now: what it sent is on its way.
    fn read(&mut self, agent: &Agent) -> io::Result<Attended> {
        loop {
            let message = match sys::holder::receive(agent.socket.as_fd(), false) {
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Attended::Still);
                }
                Err(cause) if cause.raw_os_error() == Some(libc::ECONNRESET) => {
                    return Ok(Attended::Alone);
                }
                other => other?,
            };
            let Some(message) = message else { return Ok(Attended::Alone) };
            if self.take_in(message)? == Attended::Released {
                return Ok(Attended::Released);
            }
        }
    }

    fn take_in(&mut self, (bytes, fd): (Vec<u8>, Option<OwnedFd>)) -> io::Result<Attended> {
        match (bytes.split_first(), fd) {
            (Some((&tag::HOLD, name)), Some(fd)) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.kept.push(Kept::Held { name, fd });
            }
            (Some((&tag::NOTE, text)), None) => {
                self.kept.push(Kept::Note(String::from_utf8_lossy(text).into_owned()));
            }
            (Some((&tag::SWITCH, name)), Some(fd)) => {
                self.switch.add(name, fd);
            }
            (Some((&tag::WATCH, _)), Some(fd)) => self.tree.processes.push(fd),
            (Some((&tag::CGROUP, _)), Some(fd)) => self.tree.cgroups.push(fd),
            (Some((&tag::RELEASE, _)), None) => return Ok(Attended::Released),
            _ => tracing::warn!("a message from the agent makes no sense"),
        }
        Ok(Attended::Still)
    }

    /// Before there is anything to hold.
    fn receive_switch(&mut self, agent: &Agent) -> io::Result<()> {
        while !self.switch.hold()? {
            let message = sys::holder::receive(agent.socket.as_fd(), true)?;
            self.take_in(message.ok_or(io::ErrorKind::ConnectionReset)?)?;
        }
        Ok(())
    }

    fn wait_for_successor(&mut self, grace: Duration) -> io::Result<Option<Agent>> {
        let limit = Instant::now() + grace;
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if wait(&[&self.door.socket], Some(left))?[0]
                && let Some(socket) = self.door.accept()?
            {
                match self.hand_over(socket) {
                    Ok(agent) => return Ok(Some(agent)),
                    // It came and died, or was no agent: the next one may still come.
                    Err(cause) => tracing::warn!(%cause, "handing over failed"),
                }
            }
        }
    }

    fn hand_over(&self, socket: OwnedFd) -> io::Result<Agent> {
        let agent = Agent::new(socket)?;
        for kept in &self.kept {
            let (tag, text, fd) = match kept {
                Kept::Held { name, fd } => (tag::HOLD, name, Some(fd.as_fd())),
                Kept::Note(text) => (tag::NOTE, text, None),
            };
            let message = [&[tag], text.as_bytes()].concat();
            sys::holder::send(agent.socket.as_fd(), &message, fd)?;
        }
        for (name, fd) in self.switch.iter() {
            let message = [&[tag::SWITCH], name.as_bytes()].concat();
            sys::holder::send(agent.socket.as_fd(), &message, Some(fd.as_fd()))?;
        }
        sys::holder::send(agent.socket.as_fd(), &[tag::READY], None)?;
        Ok(agent)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attended {
    Still,
    Alone,
    Released,
}

#[derive(Debug)]
struct Agent {
    socket: OwnedFd,
    pidfd: OwnedFd,
}

impl Agent {
    /// Only root and we ourselves: the descriptors are a tree's whole memory.
    fn new(socket: OwnedFd) -> io::Result<Self> {
        limit_waits(&socket)?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let pidfd = sys::holder::pidfd_open(peer.pid())?;
        Ok(Self { socket, pidfd })
    }
}

#[derive(Debug)]
struct Door {
    socket: OwnedFd,
    path: PathBuf,
}

impl Door {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        let door = Self { socket, path: path.to_owned() };
        listen(&door.socket, Backlog::new(1)?)?;
        Ok(door)
    }

    /// Nobody when the caller has already gone again.
    fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match sys::holder::accept(self.socket.as_fd()) {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Which of these have something to read, or have ended.
fn wait(fds: &[&OwnedFd], time_max: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = time_max.map_or(PollTimeout::NONE, |time| {
        // Rounded up: waking early would only wait again.
        PollTimeout::try_from(time.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut polled, timeout) {
        Err(Errno::EINTR) | Ok(0) => return Ok(vec![false; fds.len()]),
        other => other?,
    };
    Ok(polled.iter().map(|fd| fd.any() == Some(true)).collect())
}

fn raise_descriptor_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn file(path: &Path) -> Object {
    Object::File { path: path.display().to_string() }
}
