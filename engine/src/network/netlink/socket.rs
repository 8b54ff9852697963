//! The socket over which the kernel is asked, and its answers waited for.

use super::{Answer, Failure, Message, answers, number};
use crate::sys;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// The kernel answers while we send; a dump goes on as we read. So this only ends what is broken.
const ANSWER_MS_MAX: i64 = 5000;

/// The kernel makes the parts of a list as long as the room that it has seen, and no longer than that.
const PART_BYTES: usize = 1 << 15;

/// A netlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// `protocol`: NETLINK_*.
    pub(crate) fn open(protocol: i32) -> io::Result<Self> {
        let fd = sys::sock::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        let mut any = [0; 12];
        any[..2].copy_from_slice(&u16::try_from(libc::AF_NETLINK).unwrap_or(0).to_ne_bytes());
        sys::sock::bind(fd.as_fd(), &any)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            sys::sock::set_number(fd.as_fd(), libc::SOL_NETLINK, option, 1)?;
        }
        let limit = [ANSWER_MS_MAX / 1000, 0].map(i64::to_ne_bytes).concat();
        sys::sock::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit)?;
        Ok(Self(fd))
    }

    /// Room for messages of this length: SO_SNDBUFFORCE, which needs CAP_NET_ADMIN.
    pub(in crate::network) fn make_room(&self, bytes: i32) -> io::Result<()> {
        sys::sock::set_number(self.0.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
    }

    /// What the kernel calls this socket; no other of this protocol and namespace has it.
    pub(in crate::network) fn port(&self) -> io::Result<u32> {
        let address = sys::sock::local_address(self.0.as_fd())?;
        number(&address, 4).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(in crate::network) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// What is there to be read now, which after a request is everything.
    pub(in crate::network) fn answers_at_once(&self) -> io::Result<Vec<Answer>> {
        let mut all = Vec::new();
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(answers) => all.extend(answers),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Vec<Answer>> {
        let fd = self.0.as_raw_fd();
        let mut bytes = vec![0; PART_BYTES];
        let length = recv(fd, &mut bytes, flags | MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
        bytes.resize(length, 0);
        let read = recv(fd, &mut bytes, flags)?;
        bytes.truncate(read);
        Ok(answers(&bytes))
    }

    /// Asks for one thing to be done.
    pub(crate) fn request(&self, message: &Message) -> Result<(), Failure> {
        let acknowledged = Message { flags: message.flags | ACK, ..message.clone() };
        self.send(&acknowledged.encode(1))?;
        let answers = self.receive(MsgFlags::empty())?;
        let mut errors =
            answers.iter().filter(|answer| i32::from(answer.kind) == libc::NLMSG_ERROR);
        match errors.next().map(Answer::failure) {
            Some(None) => Ok(()),
            Some(Some(failure)) => Err(failure),
            None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }

    /// Asks for one thing to be told.
    pub(crate) fn ask(&self, message: &Message) -> Result<Vec<u8>, Failure> {
        self.send(&message.encode(1))?;
        let answer = self.receive(MsgFlags::empty())?.into_iter().next().ok_or_else(broken)?;
        match i32::from(answer.kind) {
            libc::NLMSG_ERROR => Err(answer.failure().unwrap_or_else(broken)),
            _ => Ok(answer.body),
        }
    }

    /// Asks for a list. One that changed while it was read is read again.
    pub(crate) fn list(&self, message: &Message) -> Result<Vec<Vec<u8>>, Failure> {
        const ATTEMPTS: u32 = 20;
        let dump = Message { flags: message.flags | DUMP, ..message.clone() };
        for _ in 0..ATTEMPTS {
            self.send(&dump.encode(1))?;
            if let Some(list) = self.rest_of_list()? {
                return Ok(list);
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy).into())
    }

    /// To its end; `None` when it was interrupted by a change.
    fn rest_of_list(&self) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        const INTERRUPTED: u16 = 0x10;
        let (mut list, mut whole) = (Vec::new(), true);
        loop {
            for answer in self.receive(MsgFlags::empty())? {
                whole &= answer.flags & INTERRUPTED == 0;
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE => return Ok(whole.then_some(list)),
                    libc::NLMSG_ERROR => return Err(answer.failure().unwrap_or_else(broken)),
                    _ => list.push(answer.body),
                }
            }
        }
    }
}

const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;

fn broken() -> Failure {
    io::Error::from(io::ErrorKind::InvalidData).into()
}
