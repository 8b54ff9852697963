//! The original of a connection, while it is in doubt who has it.

use super::image::Timeouts;
use super::info::{State, state};
use super::{dismissal, repair, silence, timeouts};
use crate::kinds::{Rules, Tcp};
use prost::Message as _;
use std::io;
use std::os::fd::BorrowedFd;

/// What it was, and what is to become of it. Stands in a journal, and in the socket itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Held {
    #[prost(message, optional, tag = "1")]
    timeouts: Option<Timeouts>,
    /// Its peer is told when it is ended: [`Tcp::Reset`].
    #[prost(bool, tag = "2")]
    resets: bool,
}

pub(super) fn begin(socket: BorrowedFd<'_>, rules: &Rules) -> io::Result<Option<Vec<u8>>> {
    if matches!(state(socket)?, State::Close | State::Listen) {
        return Ok(None);
    }
    match rules.tcp {
        Tcp::Refuse | Tcp::Close => Ok(None),
        Tcp::Reset => Ok(Some(Held { timeouts: None, resets: true }.encode_to_vec())),
        Tcp::Established => silence_it(socket).map(Some),
    }
}

fn silence_it(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // Somebody began, and died.
    if let Some(kept) = silence::kept(socket)? {
        timeouts::suspend(socket)?;
        return Ok(kept.bytes);
    }
    let before = timeouts::read(socket)?;
    let bytes = Held { timeouts: Some(before), resets: false }.encode_to_vec();
    silence::begin(socket, &bytes)?;
    timeouts::suspend(socket)?;
    Ok(bytes)
}

/// It goes on here.
pub(super) fn take_back(socket: BorrowedFd<'_>, before: &[u8]) -> io::Result<()> {
    let Some(before) = read(before)?.timeouts else { return Ok(()) };
    timeouts::resume(socket, before)?;
    match silence::kept(socket)? {
        Some(kept) => silence::end(socket, &kept),
        None => Ok(()),
    }
}

/// It goes on elsewhere, or its peer is told that it does not.
pub(super) fn leave(socket: BorrowedFd<'_>, before: &[u8]) -> io::Result<()> {
    if !read(before)?.resets {
        return repair::begin(socket);
    }
    dismissal::reset_at_close(socket)
}

fn read(before: &[u8]) -> io::Result<Held> {
    Held::decode(before).map_err(|_| io::ErrorKind::InvalidData.into())
}
