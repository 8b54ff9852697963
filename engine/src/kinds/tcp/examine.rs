//! Which connections can go on elsewhere.

use super::create::NAME;
use super::diagnosis;
use super::info::{State, state};
use crate::kinds::address::Address;
use crate::kinds::{Findings, Seen, Tree};
use crate::sys;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

/// Reasons against a move of a connection that is not over.
pub(super) fn examine(seen: &Seen, tree: &dyn Tree, findings: &mut Findings) {
    // It was closed in the meantime.
    let Ok(socket) = seen.steal() else { return };
    match blocker(seen, socket.as_fd(), tree) {
        Ok(None) => {}
        Ok(Some((reason, advice))) => findings.refuse(seen.object(NAME), reason, advice),
        Err(error) => findings.refuse(
            seen.object(NAME),
            format!("cannot be looked into: {error}"),
            "Let the program close it, or allow `--tcp close`.",
        ),
    }
}

type Blocker = (String, &'static str);

fn blocker(seen: &Seen, socket: BorrowedFd<'_>, tree: &dyn Tree) -> io::Result<Option<Blocker>> {
    let own = |reason: &str, advice| Ok(Some((reason.to_owned(), advice)));
    let state = state(socket)?;
    if state == State::SynReceived {
        return own("is opened from both ends at once, or by TCP Fast Open", "Try again.");
    }
    if has_upper_protocol(socket) {
        return own(
            "is used through another protocol in the kernel (TCP_ULP, as for TLS)",
            "Let the program do it itself.",
        );
    }
    if let Some(reason) = filter_in_the_way(socket) {
        return own(reason, "Let the program detach it.");
    }
    let local = sys::sock::local_address(socket)?;
    let Some(peer) = sys::sock::peer_address(socket)? else { return Ok(None) };
    let (local, peer) = (Address(&local), Address(&peer));
    if local.ip().is_some_and(is_of_one_link) {
        return own(
            "has an address of one link alone (fe80::/10), which does not move",
            "Let the program use another address, or allow `--tcp close`.",
        );
    }
    if diagnosis::one(local.clone(), peer.clone())?.is_some_and(|listed| listed.is_signed) {
        return own(
            "signs its segments (TCP_MD5SIG), and the kernel does not give the key back",
            "Let the program close it, or allow `--tcp close`.",
        );
    }
    match leads_out_of_the_tree(seen, state, [&local, &peer], tree)? {
        true => Ok(Some((
            format!("leads to {peer} on this host, to a program that stays here"),
            "Move that program as well, or allow `--tcp close`.",
        ))),
        false => Ok(None),
    }
}

/// TCP_ULP of linux/tcp.h.
const TCP_ULP: i32 = 31;

fn has_upper_protocol(socket: BorrowedFd<'_>) -> bool {
    let mut name = [0; 16];
    sys::sock::read_option(socket, libc::SOL_TCP, TCP_ULP, &mut name).is_ok_and(|length| length > 0)
}

fn filter_in_the_way(socket: BorrowedFd<'_>) -> Option<&'static str> {
    let locked = sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER);
    match sys::filter::read(socket) {
        Err(_) => Some("has an eBPF filter, which the kernel does not give back"),
        Ok(_) if locked.is_ok_and(|locked| locked != 0) => {
            Some("has locked its packet filters (SO_LOCK_FILTER), so it cannot be kept silent")
        }
        Ok(_) => None,
    }
}

fn is_of_one_link(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Both ends of a connection within one host can only move together, unless the other one was closed
/// and has nothing more to say: it is nobody's.
fn leads_out_of_the_tree(
    seen: &Seen,
    state: State,
    [local, peer]: [&Address<'_>; 2],
    tree: &dyn Tree,
) -> io::Result<bool> {
    let (Some(here), Some(there)) = (local.ip(), peer.ip()) else { return Ok(false) };
    let on_loopback = there.to_canonical().is_loopback();
    let other = diagnosis::one(peer.clone(), local.clone())?;
    match other {
        None => Ok((on_loopback || here == there) && !state.peer_finished()),
        Some(other) if other.inode == 0 && state.peer_finished() => Ok(false),
        Some(other) => {
            let in_tree = |one: &Seen| one.inode == other.inode && one.inode != seen.inode;
            Ok(!tree.descriptions().iter().any(in_tree))
        }
    }
}
