//! One descriptor, as /proc shows it.

use super::clocks;
use super::peers::Peers;
use crate::error::{Error, Object, OnObject as _};
use crate::kinds::{ClockShifts, Seen, SocketSeen};
use crate::spread::spread;
use crate::sys;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstatat};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// A process whose table is being looked at. Folders of /proc are opened once: naming the process
/// in every path would look it up every time.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) clock_shifts: ClockShifts,
    links: OwnedFd,
    infos: OwnedFd,
    handle: OwnedFd,
    /// In whose network namespace its sockets are.
    network_of: i32,
}

/// What one descriptor shows, beside its description.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) seen: Seen,
    pub(super) close_on_exec: bool,
    pub(super) mount: u64,
}

impl Process {
    pub(super) fn open(pid: i32) -> Result<Self, Error> {
        let folder = |name: &str| File::open(format!("/proc/{pid}/{name}")).map(OwnedFd::from);
        let open = || -> io::Result<Self> {
            let handle = sys::fd::pidfd_open(pid, 0)?;
            let clock_shifts = clocks::shifts(pid);
            let (links, infos) = (folder("fd")?, folder("fdinfo")?);
            Ok(Self { pid, clock_shifts, links, infos, handle, network_of: pid })
        };
        open().on("open the descriptors of", || Object::Process { pid })
    }

    /// Ourselves, as far as our descriptors are duplicates of what is in flight to that process.
    pub(super) fn holding_for(pid: i32) -> Result<Self, Error> {
        let us = Self::open(std::process::id().cast_signed())?;
        Ok(Self { network_of: pid, ..us })
    }

    /// The numbers in its table, ascending.
    pub(super) fn numbers(&self) -> Result<Vec<i32>, Error> {
        let list = || -> io::Result<Vec<i32>> {
            let mut numbers = Vec::new();
            for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid))? {
                let name = entry?.file_name();
                numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        list().on("list the descriptors of", || Object::Process { pid: self.pid })
    }

    /// What it has open at these numbers; what it has closed in the meantime is left out.
    /// The files of /proc take their time, so many descriptors are shared among the processors.
    pub(super) fn look_at_all(
        &self,
        numbers: &[i32],
        peers: &mut Peers,
    ) -> Result<Vec<Looked>, Error> {
        let read = |&fd: &i32| match self.read(fd) {
            Ok(looked) => Ok(Some(looked)),
            Err(error) if is_closed(&error) => Ok(None),
            Err(error) => Err(error).on("look at", || self.object(fd)),
        };
        let all = spread(numbers, SHARE_MIN, read).into_iter().filter_map(Result::transpose);
        let mut all = all.collect::<Result<Vec<Looked>, Error>>()?;
        for looked in &mut all {
            let object = self.object(looked.seen.fd);
            self.introduce(looked, peers).on("look at", || object)?;
        }
        Ok(all)
    }

    /// `None` when the program has closed it in the meantime.
    pub(super) fn look(&self, fd: i32, peers: &mut Peers) -> Result<Option<Looked>, Error> {
        Ok(self.look_at_all(&[fd], peers)?.pop())
    }

    /// A unix socket's peer is known to a list of all of them alone.
    fn introduce(&self, looked: &mut Looked, peers: &mut Peers) -> io::Result<()> {
        let inode = looked.seen.inode;
        if let Some(socket) = looked.seen.socket.as_mut().filter(|it| it.domain == libc::AF_UNIX) {
            socket.unix = peers.of(self.network_of, inode)?;
        }
        Ok(())
    }

    pub(super) fn steal(&self, fd: i32) -> io::Result<OwnedFd> {
        sys::fd::pidfd_getfd(self.handle.as_fd(), fd)
    }

    fn object(&self, fd: i32) -> Object {
        Object::Fd { pid: self.pid, fd, kind: "descriptor" }
    }

    fn read(&self, fd: i32) -> io::Result<Looked> {
        let name = fd.to_string();
        let link = readlinkat(&self.links, &*name)?.to_string_lossy().into_owned();
        let stat = fstatat(&self.links, &*name, AtFlags::empty())?;
        let fdinfo = self.fdinfo(&name)?;
        let socket = match stat.st_mode & libc::S_IFMT {
            libc::S_IFSOCK if link.starts_with("socket:[") => {
                let local = self.steal(fd)?;
                Some(socket(local.as_fd())?)
            }
            _ => None,
        };
        let seen = Seen {
            pid: self.pid,
            fd,
            link,
            mode: stat.st_mode,
            device: stat.st_dev,
            inode: stat.st_ino,
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink,
            position: 0,
            flags: 0,
            fdinfo,
            socket,
            in_flight_to: None,
        };
        parse(seen)
    }

    /// Such a file is made whole by its first read, so what leaves room has come to the end. To ask
    /// for its size, and once more for the end, would take longer than the rest.
    fn fdinfo(&self, name: &str) -> io::Result<String> {
        let file = openat(&self.infos, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (mut file, mut text, mut length) = (File::from(file), vec![0; FDINFO_BYTES], 0);
        loop {
            length += file.read(&mut text[length..])?;
            if length < text.len() {
                break;
            }
            text.resize(text.len() * 2, 0);
        }
        text.truncate(length);
        String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Looked at in ten times the time that it takes to start a thread.
const SHARE_MIN: usize = 64;

/// An epoll with six members fits.
const FDINFO_BYTES: usize = 512;

/// Gone since the table was listed: the link is missing, or the number is empty.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBADF))
}

/// `flags` are octal and have O_CLOEXEC, which belongs to the descriptor.
fn parse(seen: Seen) -> io::Result<Looked> {
    let field = |name: &str| {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in fdinfo"));
        seen.field(name).ok_or_else(missing)
    };
    let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
    let flags = i32::from_str_radix(field("flags")?, 8).map_err(bad)?;
    let position = field("pos")?.parse::<i64>().map_err(bad)?;
    let mount = field("mnt_id")?.parse().map_err(bad)?;
    let position = u64::try_from(position).unwrap_or(0);
    let close_on_exec = flags & libc::O_CLOEXEC != 0;
    let seen = Seen { position, flags: flags & !libc::O_CLOEXEC, ..seen };
    Ok(Looked { seen, close_on_exec, mount })
}

fn socket(local: BorrowedFd<'_>) -> io::Result<SocketSeen> {
    let number = |name| sys::sock::read_number(local, libc::SOL_SOCKET, name);
    let (domain, kind) = (number(libc::SO_DOMAIN)?, number(libc::SO_TYPE)?);
    let protocol = number(libc::SO_PROTOCOL)?;
    let is_tcp = kind == libc::SOCK_STREAM && protocol == libc::IPPROTO_TCP;
    Ok(SocketSeen {
        domain,
        kind,
        protocol,
        // Some families do not know the option, and then do not listen either.
        listening: number(libc::SO_ACCEPTCONN).unwrap_or(0) != 0,
        tcp_state: if is_tcp { tcp_state(local)? } else { 0 },
        hung_up: is_tcp && hung_up(local)?,
        unix: None,
    })
}

/// The first byte of TCP_INFO.
fn tcp_state(local: BorrowedFd<'_>) -> io::Result<u8> {
    let mut state = [0];
    sys::sock::read_option(local, libc::SOL_TCP, libc::TCP_INFO, &mut state)?;
    Ok(state[0])
}

fn hung_up(local: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::fd::poll(local, libc::POLLRDHUP, 0)? & libc::POLLRDHUP != 0)
}
