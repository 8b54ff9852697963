//! Putting back what was queued, by sending it.

use super::{QUEUED_BYTES_MAX, Queued, Sender};
use crate::kinds::{Making, Others};
use crate::sys;
use crate::sys::ancillary::{self, Along, Credentials};
use std::io;
use std::os::fd::BorrowedFd;

/// What a queue is filled by. Neither end may ask for credentials yet: then the kernel would add
/// ours where there were none.
#[derive(Clone, Copy)]
pub(in crate::kinds) struct Refill<'a> {
    pub(in crate::kinds) others: &'a dyn Others,
    pub(in crate::kinds) stage: &'a dyn Making,
}

impl Refill<'_> {
    /// Sends what the other end had queued. A queue of small messages counts more than its bytes,
    /// so the sender's buffer is made large for as long as it takes.
    pub(in crate::kinds) fn send(
        &self,
        sender: BorrowedFd<'_>,
        to: Option<&[u8]>,
        queue: &[Queued],
    ) -> io::Result<()> {
        if queue.is_empty() {
            return Ok(());
        }
        let doubled = sys::sock::read_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
        let roomy = i32::try_from(QUEUED_BYTES_MAX).unwrap_or(i32::MAX);
        sys::sock::set_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, roomy)?;
        let sent = queue.iter().try_for_each(|message| self.send_whole(sender, to, message));
        sys::sock::set_number(sender, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, doubled / 2)?;
        sent
    }

    /// An empty message is sent once; a stream may take less than the whole.
    fn send_whole(
        &self,
        sender: BorrowedFd<'_>,
        to: Option<&[u8]>,
        message: &Queued,
    ) -> io::Result<()> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "unknown things are in flight");
        let flight = message.descriptions.iter().map(|id| self.others.of(*id));
        let flight = flight.collect::<Option<Vec<_>>>().ok_or_else(unknown)?;
        let flags = if message.urgent { libc::MSG_OOB } else { 0 };
        let credentials = self.credentials(message);
        let mut sent = 0;
        loop {
            let descriptors = if sent == 0 { &flight[..] } else { &[] };
            let along = Along { descriptors, credentials, to, flags };
            sent += ancillary::send(sender, &message.bytes[sent..], along)?;
            if sent >= message.bytes.len() {
                return Ok(());
            }
        }
    }

    /// A process outside of the tree is not here, and whoever has its id is a stranger: then the
    /// receiver is told that nobody knows.
    fn credentials(&self, message: &Queued) -> Option<Credentials> {
        let sender = message.sender.filter(|sender| self.stage.contains_process(sender.pid));
        sender.map(|Sender { pid, uid, gid }| Credentials { pid, uid, gid })
    }
}
