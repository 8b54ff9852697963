//! What becomes of a unix socket that is connected to a process outside of the tree.

use super::unix_name::Name;
use super::{Findings, OutsideUnix, Rules, SocketSeen};
use crate::error::Object;
use crate::sys;
use std::io;
use std::os::fd::AsFd as _;

/// What it will be on the destination.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// Its peer has closed the connection.
    Closed,
    /// Connected to whoever has that name there.
    Reconnected(Name),
}

/// Why it stands against the move, and what the operator can do.
pub(super) type Blocker = (String, &'static str);

pub(super) fn fate(socket: &SocketSeen, rules: &Rules) -> Result<Fate, Blocker> {
    let peer = peer(socket);
    let is_datagram = socket.kind == libc::SOCK_DGRAM;
    let reason = match &peer {
        Some(name) => format!("is connected to {} outside of the tree", name.shown()),
        None => {
            "is connected to a process outside of the tree, or to a socket in flight".to_owned()
        }
    };
    match (rules.outside_unix, peer) {
        (OutsideUnix::Close, _) => Ok(Fate::Closed),
        (OutsideUnix::Reconnect, Some(name)) => Ok(Fate::Reconnected(name)),
        (OutsideUnix::Auto, Some(name)) if is_datagram => Ok(Fate::Reconnected(name)),
        (_, None) => Err((reason, "Move both, or allow `--unix close`.")),
        _ => Err((reason, "Move both, or allow `--unix reconnect` or `--unix close`.")),
    }
}

/// The name under which the peer can be found on another host. Who has accepted a connection cannot
/// make it again, and a relative name leads nowhere.
fn peer(socket: &SocketSeen) -> Option<Name> {
    let unix = socket.unix.as_ref().filter(|unix| !unix.shares_name)?;
    let leads = matches!(unix.peer_name.first(), Some(0 | b'/'));
    leads.then(|| Name::outside(&unix.peer_name))
}

/// What is to be said of it before the freeze.
pub(super) fn find(findings: &mut Findings, object: Object, fate: Result<Option<Fate>, Blocker>) {
    match fate {
        Err((reason, advice)) => findings.refuse(object, reason, advice),
        Ok(Some(fate)) => findings.note(object, note(&fate)),
        Ok(None) => {}
    }
}

/// What will be different, as a clause.
fn note(fate: &Fate) -> String {
    match fate {
        Fate::Closed => "will find its connection to the outside closed".to_owned(),
        Fate::Reconnected(name) => {
            format!("will be connected to {} on the destination", name.shown())
        }
    }
}

/// Why nobody can be reached under that name on this host.
pub(super) fn lacks(name: &Name, kind: i32) -> Option<Blocker> {
    let why = match is_reachable(name, kind) {
        Ok(true) => return None,
        Ok(false) => "nobody is there".to_owned(),
        Err(error) => error.to_string(),
    };
    let reason = format!("cannot be connected to {} here: {why}", name.shown());
    Some((reason, "Start what listens there, or allow `--unix close`."))
}

/// Without being noticed: a connection to a service that is only tried would be one to it.
fn is_reachable(name: &Name, kind: i32) -> io::Result<bool> {
    if kind != libc::SOCK_DGRAM && name.is_abstract() {
        return is_listed(name);
    }
    let probe = sys::sock::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    match sys::sock::connect(probe.as_fd(), &name.address()?) {
        Ok(()) => Ok(kind == libc::SOCK_DGRAM),
        // It is there, and a stream.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            Ok(kind != libc::SOCK_DGRAM)
        }
        // It is there, and somebody else's peer.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an abstract name is listened to: proc_net_unix(5) shows it with `@` for zeros, and
/// __SO_ACCEPTCON among its flags.
fn is_listed(name: &Name) -> io::Result<bool> {
    let list = std::fs::read("/proc/net/unix")?;
    let list = String::from_utf8_lossy(&list);
    let listens = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(3) == Some(&"00010000")
            && words.get(7).is_some_and(|found| *found == name.shown())
    };
    Ok(list.lines().any(listens))
}
