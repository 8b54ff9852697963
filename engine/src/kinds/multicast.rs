//! The multicast groups that a socket has joined: ip(7), ipv6(7), RFC 3678.
//!
//! The kernel has no list of them. It has one of every group that somebody on the host is in, and
//! says of a socket and a group with its device whether the one has joined the other.

use crate::sys;
use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Membership {
    /// By its name: its index is another one on another host.
    #[prost(bytes = "vec", tag = "1")]
    device: Vec<u8>,
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "2")]
    group: Vec<u8>,
    /// Whether `senders` are those that are heard, and not those that are not.
    #[prost(bool, tag = "3")]
    includes: bool,
    #[prost(bytes = "vec", repeated, tag = "4")]
    senders: Vec<Vec<u8>>,
}

#[cfg(test)]
impl Membership {
    pub(super) fn of(device: &str, group: Vec<u8>, includes: bool, senders: Vec<Vec<u8>>) -> Self {
        Self { device: device.as_bytes().to_vec(), group, includes, senders }
    }
}

const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_MSFILTER: i32 = 48;
const MCAST_INCLUDE: u32 = 1;

/// Everything that the socket has joined. `pid` is a process of its network namespace.
pub(super) fn read(socket: BorrowedFd<'_>, pid: i32) -> io::Result<Vec<Membership>> {
    let mut joined = Vec::new();
    for &(index, group) in &*lately(pid)? {
        joined.extend(membership(socket, index, group)?);
    }
    Ok(joined)
}

type Groups = Rc<Vec<(u32, IpAddr)>>;

/// The lists cost 30 us to read, and a tree may have a thousand sockets. One that stands still joins
/// nothing, and it takes far longer than this from a look at one that runs to its freeze.
const FRESH: Duration = Duration::from_millis(1);

thread_local! {
    static LAST: RefCell<Option<(i32, Instant, Groups)>> = const { RefCell::new(None) };
}

fn lately(pid: i32) -> io::Result<Groups> {
    let last = LAST.with_borrow(Clone::clone);
    let fresh = last.filter(|(of, at, _)| *of == pid && at.elapsed() < FRESH);
    if let Some((_, _, groups)) = fresh {
        return Ok(groups);
    }
    let (at, read) = (Instant::now(), Rc::new(groups(pid)?));
    LAST.set(Some((pid, at, Rc::clone(&read))));
    Ok(read)
}

/// Every group of the host, with the index of its device; none where a kernel has no IPv6.
fn groups(pid: i32) -> io::Result<Vec<(u32, IpAddr)>> {
    let text = |name| match fs::read_to_string(format!("/proc/{pid}/net/{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    };
    let mut groups = parse_v4(&text("igmp")?);
    groups.extend(parse_v6(&text("igmp6")?));
    Ok(groups)
}

/// A line "4 eth0 : 1 V3" for a device, then indented ones that begin with a group, in the order
/// of the bytes in memory.
pub(super) fn parse_v4(text: &str) -> Vec<(u32, IpAddr)> {
    let (mut groups, mut index) = (Vec::new(), None);
    for line in text.lines() {
        let Some(first) = line.split_whitespace().next() else { continue };
        if !line.starts_with(char::is_whitespace) {
            index = first.parse().ok();
        } else if let (Some(index), Ok(word)) = (index, u32::from_str_radix(first, 16)) {
            groups.push((index, Ipv4Addr::from(word.to_ne_bytes()).into()));
        }
    }
    groups
}

/// "4 eth0 ff02000000000000000000000000000f 1 0000000C 0".
pub(super) fn parse_v6(text: &str) -> Vec<(u32, IpAddr)> {
    let group = |line: &str| {
        let mut words = line.split_whitespace();
        let index = words.next()?.parse().ok()?;
        let bits = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((index, Ipv6Addr::from(bits).into()))
    };
    text.lines().filter_map(group).collect()
}

/// `struct group_filter`: index, group, mode, count, senders; addresses are `sockaddr_storage`.
const ADDRESS: usize = 128;
const GROUP: usize = 8;
const MODE: usize = GROUP + ADDRESS;
const COUNT: usize = MODE + 4;
const SENDERS: usize = COUNT + 4;

/// Asked twice: of most groups that the host is in, most sockets are in none.
fn membership(socket: BorrowedFd<'_>, index: u32, group: IpAddr) -> io::Result<Option<Membership>> {
    let count = match filter(socket, index, group, 0) {
        // It has not joined it, or it is a socket of IPv4 and was asked for a group of IPv6.
        Err(error) if is_none(&error) => return Ok(None),
        read => word(&read?, COUNT),
    };
    let room = filter(socket, index, group, count)?;
    let senders = room[SENDERS..].chunks_exact(ADDRESS);
    Ok(Some(Membership {
        device: sys::device::name(socket, index)?,
        group: octets(group),
        includes: word(&room, MODE) == MCAST_INCLUDE,
        senders: senders.filter_map(|one| super::address::Address(one).ip()).map(octets).collect(),
    }))
}

/// A `group_filter` with room for so many senders, as the kernel fills it; it has the real count.
fn filter(socket: BorrowedFd<'_>, index: u32, group: IpAddr, count: u32) -> io::Result<Vec<u8>> {
    let mut room = request(index, group);
    room.extend([0, count].map(u32::to_ne_bytes).concat());
    room.resize(SENDERS + count as usize * ADDRESS, 0);
    sys::sock::read_option(socket, level(group), MCAST_MSFILTER, &mut room)?;
    Ok(room)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn is_none(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL)
    )
}

fn level(group: IpAddr) -> i32 {
    if group.is_ipv6() { libc::SOL_IPV6 } else { libc::SOL_IP }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// `struct group_req`, with which the longer ones begin.
fn request(index: u32, group: IpAddr) -> Vec<u8> {
    let mut bytes = index.to_ne_bytes().to_vec();
    bytes.resize(GROUP, 0);
    bytes.extend(storage(group));
    bytes
}

fn storage(ip: IpAddr) -> Vec<u8> {
    let mut bytes = super::address::of(ip, 0);
    bytes.resize(ADDRESS, 0);
    bytes
}

/// Whether this host has the device; the name is for people.
pub(super) fn missing_device(socket: BorrowedFd<'_>, joined: &[Membership]) -> Option<String> {
    let missing = joined.iter().find(|one| sys::device::index(socket, &one.device).is_err())?;
    Some(String::from_utf8_lossy(&missing.device).into_owned())
}

/// Joins them all: routers and switches are told at once, so that the traffic comes here.
pub(super) fn join(socket: BorrowedFd<'_>, joined: &[Membership]) -> io::Result<()> {
    joined.iter().try_for_each(|one| join_one(socket, one))
}

fn join_one(socket: BorrowedFd<'_>, one: &Membership) -> io::Result<()> {
    let group = ip(&one.group)?;
    let index = sys::device::index(socket, &one.device)?;
    let mut bytes = request(index, group);
    match sys::sock::set_option(socket, level(group), MCAST_JOIN_GROUP, &bytes) {
        Err(error) if error.raw_os_error() != Some(libc::EADDRINUSE) => return Err(error),
        _ => {}
    }
    if !one.includes && one.senders.is_empty() {
        return Ok(());
    }
    let count = u32::try_from(one.senders.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    bytes.extend(if one.includes { MCAST_INCLUDE } else { 0 }.to_ne_bytes());
    bytes.extend(count.to_ne_bytes());
    for sender in &one.senders {
        bytes.extend(storage(ip(sender)?));
    }
    sys::sock::set_option(socket, level(group), MCAST_MSFILTER, &bytes)
}

fn ip(bytes: &[u8]) -> io::Result<IpAddr> {
    match bytes.len() {
        4 => Ok(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()).into()),
        16 => Ok(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()).into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a group that is no address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_the_kernel_are_read() {
        let v4 = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                  1\tlo        :     1      V3\n\
                  \t\t\t\t010000E0     1 0:00000000\t\t0\n\
                  4\teth0      :     2      V3\n\
                  \t\t\t\tFB0000E0     1 0:00000000\t\t0\n";
        let expected: [(u32, IpAddr); 2] =
            [(1, [224, 0, 0, 1].into()), (4, [224, 0, 0, 251].into())];
        assert_eq!(parse_v4(v4), expected);
        let v6 = "4    eth0            ff0200000000000000000001ff000002     1 00000004 0\n";
        assert_eq!(parse_v6(v6), [(4, "ff02::1:ff00:2".parse().unwrap())]);
        assert_eq!((parse_v4("x\n \t\n"), parse_v6("4 eth0")), (Vec::new(), Vec::new()));
    }
}
