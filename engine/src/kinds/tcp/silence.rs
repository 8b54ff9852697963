//! A connection that hears nothing, and knows by itself what it was before.
//!
//! A packet filter that lets nothing pass is attached to the socket itself. It outlives whoever
//! attached it, and nothing that still comes in is acknowledged. What is to be put back later stands
//! in the filter: its first instructions load numbers that nobody looks at, and these are the bytes.
//! Behind the instruction at which it ends stands the filter that the program itself had.

use crate::sys::{filter, sock};
use std::io;
use std::os::fd::BorrowedFd;

/// `struct sock_filter` of linux/filter.h.
const INSTRUCTION_BYTES: usize = 8;
const LOAD: u16 = 0x00;
const RETURN: u16 = 0x06;
/// No other filter begins so.
const MARK: u32 = 0x6d69_6772;

/// What stands in a filter of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// The program's own; empty when it had none.
    own: Vec<u8>,
}

/// EPERM when the program has locked its own filter.
pub(super) fn begin(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let own = filter::read(socket)?;
    filter::attach(socket, &[program(bytes)?, own].concat())
}

/// `None` when the socket hears.
pub(super) fn kept(socket: BorrowedFd<'_>) -> io::Result<Option<Kept>> {
    Ok(parse(&filter::read(socket)?))
}

/// It hears again what the program's own filter lets pass.
pub(super) fn end(socket: BorrowedFd<'_>, kept: &Kept) -> io::Result<()> {
    match kept.own.is_empty() {
        true => sock::set_number(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0),
        false => filter::attach(socket, &kept.own),
    }
}

fn program(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let words = bytes.chunks(4).map(|part| {
        let mut word = [0; 4];
        word[..part.len()].copy_from_slice(part);
        u32::from_ne_bytes(word)
    });
    let loads = [MARK, length].into_iter().chain(words).flat_map(|word| instruction(LOAD, word));
    Ok(loads.chain(instruction(RETURN, 0)).collect())
}

fn instruction(code: u16, word: u32) -> [u8; INSTRUCTION_BYTES] {
    let mut bytes = [0; INSTRUCTION_BYTES];
    bytes[..2].copy_from_slice(&code.to_ne_bytes());
    bytes[4..].copy_from_slice(&word.to_ne_bytes());
    bytes
}

fn parse(program: &[u8]) -> Option<Kept> {
    let mut words = program.chunks_exact(INSTRUCTION_BYTES).map(|one| [one[4], one[5], one[6], one[7]]);
    let is_ours = program.starts_with(&instruction(LOAD, MARK));
    words.next().filter(|_| is_ours)?;
    let length = usize::try_from(u32::from_ne_bytes(words.next()?)).ok()?;
    let count = length.div_ceil(4);
    let mut bytes: Vec<u8> = words.take(count).flatten().collect();
    if bytes.len() < length {
        return None;
    }
    bytes.truncate(length);
    let own = program.get((3 + count) * INSTRUCTION_BYTES..)?.to_vec();
    Some(Kept { bytes, own })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn what_a_socket_keeps_comes_back_with_the_filter_it_had() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let own = instruction(RETURN, 77);
        filter::attach(one.as_fd(), &own).unwrap();
        begin(one.as_fd(), b"seven b").unwrap();
        let found = kept(one.as_fd()).unwrap().unwrap();
        assert_eq!(found.bytes, b"seven b");
        end(one.as_fd(), &found).unwrap();
        assert_eq!(filter::read(one.as_fd()).unwrap(), own);
        assert_eq!(kept(one.as_fd()).unwrap(), None);
    }

    #[test]
    fn a_filter_that_is_cut_off_is_none_of_ours() {
        let whole = program(&[1; 9]).unwrap();
        assert_eq!(parse(&whole).unwrap().bytes, [1; 9]);
        for end in 0..whole.len() - INSTRUCTION_BYTES {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
    }
}
