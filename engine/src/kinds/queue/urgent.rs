//! The urgent byte of a stream (MSG_OOB of send(2)): one at most, which keeps its place.

use super::{Message, Queued, Set, next};
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The byte that waits, if there is one. A socket that takes it in its turn does not tell it apart.
pub(super) fn byte(socket: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let _apart = Set::new(socket, libc::SO_OOBINLINE, 0)?;
    let mut room = [0];
    let flags = MsgFlags::MSG_OOB | MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut room, flags) {
        Ok(1) => Ok(Some(room[0])),
        // EINVAL: there is none. EOPNOTSUPP: this kernel has no CONFIG_AF_UNIX_OOB.
        Ok(_) | Err(Errno::EINVAL | Errno::EAGAIN | Errno::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Cuts the urgent byte out of the parts of a stream: one of them begins with it, since no look
/// goes beyond it.
pub(super) fn tell_apart(
    socket: BorrowedFd<'_>,
    mut parts: Vec<Message>,
) -> io::Result<Vec<Message>> {
    let at = place(socket, &parts)?;
    let part = parts.get_mut(at).filter(|part| !part.queued.bytes.is_empty());
    let part = part.ok_or_else(|| io::Error::other("an urgent byte went away meanwhile"))?;
    let rest = part.queued.bytes.split_off(1);
    let sender = part.queued.sender;
    part.queued.urgent = true;
    if !rest.is_empty() {
        let queued = Queued { bytes: rest, sender, ..Queued::default() };
        parts.insert(at + 1, Message { queued, descriptors: Vec::new() });
    }
    Ok(parts)
}

/// Two bytes from the one before it are not handed out together, unless that one had descriptors:
/// then it is a guess, and good if there is no other.
fn place(socket: BorrowedFd<'_>, parts: &[Message]) -> io::Result<usize> {
    if sys::sock::is_at_urgent_mark(socket)? {
        return Ok(0);
    }
    let (mut offset, mut guesses) = (0, Vec::new());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 && part.descriptors.is_empty() {
            let look = look_across(socket, offset)?;
            match look {
                Some((1, false)) => return Ok(index),
                Some((1, true)) => guesses.push(index),
                _ => {}
            }
        }
        offset += part.queued.bytes.len();
    }
    match guesses[..] {
        [only] => Ok(only),
        _ => Err(io::Error::other("the place of an urgent byte cannot be told")),
    }
}

/// How many of the two bytes around an offset come at once, and whether descriptors do.
fn look_across(socket: BorrowedFd<'_>, offset: usize) -> io::Result<Option<(usize, bool)>> {
    // Where the senders are told, a change of them would look the same.
    let _anonymous = Set::new(socket, libc::SO_PASSCRED, 0)?;
    let before = i32::try_from(offset - 1).unwrap_or(i32::MAX);
    let _offset = Set::new(socket, libc::SO_PEEK_OFF, before)?;
    let look = next(socket, &mut [0; 2])?;
    Ok(look.map(|look| (look.length, !look.descriptors.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::super::peek;
    use super::*;
    use crate::sys::ancillary::{self, Along};
    use std::os::fd::{AsFd as _, OwnedFd};

    fn shape(sent: &[(&str, i32, bool)]) -> Vec<(String, bool)> {
        let [one, two] = sys::sock::pair(libc::AF_UNIX, libc::SOCK_STREAM).unwrap();
        for (text, flags, flies) in sent {
            let flight: &[&OwnedFd] = if *flies { &[&one] } else { &[] };
            let flight: Vec<_> = flight.iter().map(|fd| fd.as_fd()).collect();
            let along = Along { descriptors: &flight, flags: *flags, ..Along::default() };
            ancillary::send(one.as_fd(), text.as_bytes(), along).unwrap();
        }
        let messages = peek(two.as_fd(), libc::SOCK_STREAM).unwrap();
        let shape = |one: &Message| {
            (String::from_utf8(one.queued.bytes.clone()).unwrap(), one.queued.urgent)
        };
        messages.iter().map(shape).collect()
    }

    #[test]
    fn it_is_found_at_the_beginning_in_the_middle_and_at_the_end() {
        const OOB: i32 = libc::MSG_OOB;
        let plain = |text: &str| (text.to_owned(), false);
        let urgent = ("!".to_owned(), true);
        let (before, mark, after) = (("ab", 0, false), ("!", OOB, false), ("cd", 0, false));
        assert_eq!(shape(&[mark, after]), [urgent.clone(), plain("cd")]);
        assert_eq!(shape(&[before, mark]), [plain("ab"), urgent.clone()]);
        let all = [plain("ab"), urgent.clone(), plain("cd")];
        assert_eq!(shape(&[before, mark, after]), all);
        assert_eq!(shape(&[("ab", 0, true), mark, after]), all);
        assert_eq!(shape(&[mark]), [urgent]);
    }

    #[test]
    fn one_that_another_overtook_is_a_byte_like_any_other() {
        let shape = shape(&[("a!", libc::MSG_OOB, false), ("b?", libc::MSG_OOB, false)]);
        let text: String = shape.iter().map(|(text, _)| &**text).collect();
        assert_eq!((&*text, shape.last()), ("a!b?", Some(&("?".to_owned(), true))), "{shape:?}");
    }
}
