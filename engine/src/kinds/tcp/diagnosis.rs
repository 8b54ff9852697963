//! The kernel's list of TCP sockets: sock_diag(7), linux/inet_diag.h.

use crate::kinds::address::Address;
use crate::network::netlink::{Attributes, Message, Socket, attributes, number};
use std::io;
use std::net::IpAddr;

/// A socket in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) local: Vec<u8>,
    pub(super) peer: Vec<u8>,
    pub(super) inode: u64,
    /// Its segments are signed: RFC 2385.
    pub(super) is_signed: bool,
}

/// As bits of `idiag_states`.
pub(super) const SYN_SENT: u32 = 1 << 2;
pub(super) const SYN_RECEIVED: u32 = 1 << 3;
const ALL: u32 = u32::MAX;

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Of `inet_diag_msg`.
const BODY_BYTES: usize = 72;
const INET_DIAG_MD5SIG: u16 = 18;

/// Those at a port that are in one of these states.
pub(super) fn list(local: Address<'_>, states: u32) -> io::Result<Vec<Listed>> {
    let family = match local.ip() {
        Some(IpAddr::V6(_)) => libc::AF_INET6,
        _ => libc::AF_INET,
    };
    let mut id = [0; 48];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    let list = Socket::open(libc::NETLINK_SOCK_DIAG)?.list(&request(family, states, id))?;
    list.iter().map(|body| listed(body)).collect()
}

/// The one between these two addresses.
pub(super) fn one(local: Address<'_>, peer: Address<'_>) -> io::Result<Option<Listed>> {
    let (Some(here), Some(there)) = (local.ip(), peer.ip()) else { return Ok(None) };
    let family = if here.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut id = [0; 48];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&peer.port().to_be_bytes());
    for (at, ip) in [(4, here), (20, there)] {
        match ip {
            IpAddr::V4(ip) => id[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    // No cookie: whatever socket it is.
    id[40..].fill(0xff);
    match Socket::open(libc::NETLINK_SOCK_DIAG)?.ask(&request(family, ALL, id)) {
        Err(failure) if failure.errno == libc::ENOENT => Ok(None),
        body => listed(&body?).map(Some),
    }
}

/// `inet_diag_req_v2`.
fn request(family: i32, states: u32, id: [u8; 48]) -> Message {
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    let head = [byte(family), byte(libc::IPPROTO_TCP), 0, 0];
    let fixed = [&head[..], &states.to_ne_bytes(), &id].concat();
    Message::new(SOCK_DIAG_BY_FAMILY, 0, &fixed, &Attributes::new())
}

/// `inet_diag_msg` and its attributes.
fn listed(body: &[u8]) -> io::Result<Listed> {
    let cut = io::ErrorKind::InvalidData;
    let id = body.get(4..52).ok_or(cut)?;
    let address = |port: usize, at: usize| {
        let family = u16::from(body[0]).to_ne_bytes();
        let head = [family, [id[port], id[port + 1]]].concat();
        match i32::from(body[0]) {
            libc::AF_INET => [&head, &id[at..at + 4], &[0; 8]].concat(),
            _ => [&head, &[0; 4][..], &id[at..at + 16], &[0; 4]].concat(),
        }
    };
    let mut more = attributes(body.get(BODY_BYTES..).ok_or(cut)?);
    let is_signed = more.any(|(kind, _)| kind == INET_DIAG_MD5SIG);
    let inode = number(body, 68).ok_or(cut)?.into();
    Ok(Listed { local: address(0, 4), peer: address(2, 20), inode, is_signed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    #[test]
    fn a_connection_is_listed_with_its_inode_by_both_of_its_addresses() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let local = sys::sock::local_address(client.as_fd()).unwrap();
            let peer = sys::sock::peer_address(client.as_fd()).unwrap().unwrap();
            let found = one(Address(&local), Address(&peer)).unwrap().unwrap();
            let inode = nix::sys::stat::fstat(&client).unwrap().st_ino;
            assert_eq!((found.inode, found.is_signed), (inode, false));
            assert_eq!((found.local, found.peer), (local.clone(), peer.clone()));
            drop(listener);
            assert_eq!(one(Address(&local), Address(&local)).unwrap(), None);
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_and_not_a_panic() {
        for length in 0..BODY_BYTES {
            assert!(listed(&vec![2; length]).is_err(), "{length}");
        }
        assert!(!listed(&[2; BODY_BYTES]).unwrap().is_signed);
    }
}
