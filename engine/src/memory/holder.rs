//! The holder: a small process that keeps a tree from reading zeros when the agent dies.
//!
//! When the last duplicate of a userfaultfd is closed, its missing pages become zeros, silently.
//! An agent that dies closes all of its own. So a second process has a duplicate of each and
//! watches the agent by pidfd. When the agent dies, it waits for a successor to come and take the
//! descriptors; when none comes in time, it kills the tree, and only when the tree's memory is
//! gone does it let go. The tree then still exists on the source, frozen: nothing is lost silently.
//! When both are killed in one moment, the kernel kills the tree, and also when the agent is
//! killed in the instant between the birth of a forked child's descriptor and its sending
//! ([`switch`]).
//!
//! A descriptor that was sent and not yet received is kept alive by the socket it travels in, so
//! `hold` needs no answer.
//!
//! The program runs [`run`] in a process of its own; a service that ends it together with the
//! agent (systemd's default `KillMode=control-group`) defeats it.

mod switch;
mod tree;
mod watch;

pub use watch::{End, run};

use crate::error::{Error, Object, OnObject as _};
use crate::priority::as_usual;
use crate::sys;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
    socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use switch::{Parts, Switches};

/// How long the holder and an agent wait for each other's answer.
const ANSWER_WAIT_SECONDS: i64 = 5;

/// The first byte of a message.
mod tag {
    pub(super) const HOLD: u8 = b'h';
    pub(super) const WATCH: u8 = b'w';
    pub(super) const CGROUP: u8 = b'c';
    pub(super) const NOTE: u8 = b'n';
    /// A part of the switch, by its name.
    pub(super) const SWITCH: u8 = b's';
    pub(super) const RELEASE: u8 = b'r';
    /// From the holder: it listens, or it has handed over everything.
    pub(super) const READY: u8 = b'.';
}

/// The agent's end.
#[derive(Debug)]
pub struct Holder {
    socket: OwnedFd,
    pid: i32,
    /// `None` when it is released.
    switches: Mutex<Option<Switches>>,
    /// Something could not be told.
    is_alone: AtomicBool,
}

/// What an agent left with its holder, in the order in which it was left.
#[derive(Debug)]
pub enum Kept {
    Held {
        name: String,
        fd: OwnedFd,
    },
    /// Something that the successor must know, as it was given to [`Holder::note`].
    Note(String),
}

impl Holder {
    /// Starts the process. `command` must call [`run`] with its standard input untouched; this
    /// returns when it listens for successors.
    pub fn spawn(command: &mut Command) -> Result<Self, Error> {
        let object = || Object::File { path: command_name(command) };
        let (ours, theirs) = pair().on("make a socket for", object)?;
        let name = object();
        let child = as_usual(|| command.stdin(Stdio::from(theirs)).spawn());
        let child = child.on("start the holder", || name)?;
        let pid = child.id().cast_signed();
        let switches = Switches::new().on("make a switch for", || Object::Process { pid })?;
        let holder = Self::at(ours, pid);
        for (name, fd) in switches.unarmed() {
            holder.say(tag::SWITCH, name, Some(fd.as_fd()))?;
        }
        *holder.switches() = Some(switches);
        holder.expect_ready()?;
        Ok(holder)
    }

    fn at(socket: OwnedFd, pid: i32) -> Self {
        Self { socket, pid, switches: Mutex::default(), is_alone: AtomicBool::new(false) }
    }

    /// Takes over from an agent that died: everything it held, and the place of its guard.
    /// ECONNREFUSED or ENOENT when there is no holder, ECONNRESET when its agent still lives.
    pub fn take_over(path: &Path) -> Result<(Self, Vec<Kept>), Error> {
        let object = || Object::File { path: path.display().to_string() };
        let socket = call(path).on("connect to the holder at", object)?;
        let pid = getsockopt(&socket, sockopt::PeerCredentials)
            .on("look at the holder at", object)?
            .pid();
        let holder = Self::at(socket, pid);
        let (mut kept, mut parts) = (Vec::new(), Parts::default());
        loop {
            let (bytes, fd) = holder.receive()?;
            match (bytes.split_first(), fd) {
                (Some((&tag::HOLD, name)), Some(fd)) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    kept.push(Kept::Held { name, fd });
                }
                (Some((&tag::NOTE, text)), None) => {
                    kept.push(Kept::Note(String::from_utf8_lossy(text).into_owned()));
                }
                (Some((&tag::SWITCH, name)), Some(fd)) => {
                    parts.add(name, fd);
                }
                (Some((&tag::READY, _)), _) => {
                    let switches = Switches::of(parts).on("take the switch of", object)?;
                    *holder.switches() = Some(switches);
                    return Ok((holder, kept));
                }
                _ => {
                    return Err(Error::invalid(
                        "understand",
                        holder.object(),
                        "unexpected message",
                    ));
                }
            }
        }
    }

    /// Keeps a duplicate of this userfaultfd from now on. The name is for the successor.
    pub fn hold(&self, name: &str, uffd: &impl AsFd) -> Result<(), Error> {
        self.say(tag::HOLD, name, Some(uffd.as_fd()))
    }

    /// Keeps a line of at most 500 bytes for the successor.
    pub fn note(&self, text: &str) -> Result<(), Error> {
        self.say(tag::NOTE, text, None)
    }

    /// This process is to be killed with its descendants when nobody takes over.
    pub fn watch(&self, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        self.say(tag::WATCH, "", Some(pidfd))
    }

    /// The same for a process by its id, which must not have been waited for yet; it and those in
    /// its group are killed as well when this process and the holder are.
    pub fn watch_process(&self, pid: i32) -> Result<(), Error> {
        let object = || Object::Process { pid };
        let pidfd = sys::holder::pidfd_open(pid).on("open", object)?;
        self.watch(pidfd.as_fd())?;
        let mut switches = self.switches();
        let Some(switches) = switches.as_mut() else { return Ok(()) };
        for (name, fd) in switches.arm(pid).on("arm the switch that kills", object)? {
            self.say(tag::SWITCH, name, Some(fd.as_fd()))?;
        }
        Ok(())
    }

    /// While this lives, the tree dies with the agent: what the agent learns meanwhile, the holder
    /// does not know yet.
    pub(crate) fn alone(&self) -> io::Result<Alone<'_>> {
        let stays = STAYS.read().unwrap_or_else(PoisonError::into_inner);
        self.arm_alone(true).map(|()| Alone { holder: self, _stays: stays })
    }

    /// The holder could not be told: from now on the tree dies with the agent.
    pub(crate) fn stay_alone(&self) {
        self.is_alone.store(true, Ordering::Relaxed);
        if let Err(cause) = self.arm_alone(true) {
            tracing::error!(%cause, "the tree could read zeros when this agent is killed");
        }
    }

    fn arm_alone(&self, armed: bool) -> io::Result<()> {
        self.switches().as_ref().map_or(Ok(()), |switches| switches.arm_alone(armed))
    }

    /// So is everything in this cgroup: also what was forked since and lost its parents.
    pub fn watch_cgroup(&self, directory: BorrowedFd<'_>) -> Result<(), Error> {
        self.say(tag::CGROUP, "", Some(directory))
    }

    /// Nothing is missing any more: the holder closes what it has and ends.
    pub fn release(&self) -> Result<(), Error> {
        if let Some(switches) = self.switches().take() {
            switches.disarm().on("disarm the switch of", || self.object())?;
        }
        self.say(tag::RELEASE, "", None)
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn switches(&self) -> MutexGuard<'_, Option<Switches>> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, tag: u8, text: &str, fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let message = [&[tag], text.as_bytes()].concat();
        sys::holder::send(self.socket.as_fd(), &message, fd).on("speak to", || self.object())
    }

    fn expect_ready(&self) -> Result<(), Error> {
        match self.receive()?.0.first() {
            Some(&tag::READY) => Ok(()),
            _ => Err(Error::invalid("understand", self.object(), "unexpected message")),
        }
    }

    fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>), Error> {
        let closed = || io::Error::from_raw_os_error(libc::ECONNRESET);
        sys::holder::receive(self.socket.as_fd(), true)
            .and_then(|message| message.ok_or_else(closed))
            .on("hear from", || self.object())
    }

    fn object(&self) -> Object {
        Object::Process { pid: self.pid }
    }
}

#[derive(Debug)]
pub(crate) struct Alone<'a> {
    holder: &'a Holder,
    _stays: RwLockReadGuard<'static, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        if self.holder.is_alone.load(Ordering::Relaxed) {
            return;
        }
        if let Err(cause) = self.holder.arm_alone(false) {
            tracing::error!(%cause, "the tree dies when this agent is killed");
        }
    }
}

/// Held by whoever is [`Alone`].
static STAYS: RwLock<()> = RwLock::new(());

/// To be called before this process ends by itself: no tree dies with it. Whatever serves one
/// stands still from then on.
pub fn leave() {
    std::mem::forget(STAYS.write().unwrap_or_else(PoisonError::into_inner));
}

fn command_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    limit_waits(&ours)?;
    Ok((ours, theirs))
}

fn call(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    limit_waits(&socket)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

fn limit_waits(socket: &OwnedFd) -> io::Result<()> {
    let limit = TimeVal::seconds(ANSWER_WAIT_SECONDS);
    setsockopt(socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(socket, sockopt::SendTimeout, &limit)?;
    Ok(())
}

#[cfg(test)]
mod tests;
