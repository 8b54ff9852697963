//! Routes of all tables, but for those that the kernel makes for a local address.

use super::{OF_V4, OF_V6, Table, find, number, replace};

pub(in super::super) const ROUTES: Table = Table {
    name: "route",
    get: libc::RTM_GETROUTE,
    add: libc::RTM_NEWROUTE,
    remove: libc::RTM_DELROUTE,
    requests: &[OF_V4, OF_V6],
    fixed_bytes: 12,
    kept: &[
        libc::RTA_DST,
        libc::RTA_SRC,
        libc::RTA_OIF,
        libc::RTA_GATEWAY,
        libc::RTA_PRIORITY,
        libc::RTA_PREFSRC,
        libc::RTA_METRICS,
        libc::RTA_MULTIPATH,
        libc::RTA_FLOW,
        libc::RTA_TABLE,
        libc::RTA_VIA,
        libc::RTA_PREF,
    ],
    told: &[libc::RTA_CACHEINFO],
    concerns: is_somebodys_route,
    blocker: route_blocker,
    settle: settle_route,
};

/// `struct rtmsg`: table, protocol, scope, type, flags.
fn is_somebodys_route(body: &[u8]) -> bool {
    const REDIRECT: u8 = 1;
    let (Some(&table), Some(&protocol)) = (body.get(4), body.get(5)) else { return true };
    let is_cloned = number(body, 8).is_some_and(|flags| flags & libc::RTM_F_CLONED != 0);
    // The kernel makes those of local addresses, and learns others again.
    !is_cloned
        && protocol != REDIRECT
        && !(table == libc::RT_TABLE_LOCAL && protocol == libc::RTPROT_KERNEL)
}

fn route_blocker(body: &[u8]) -> Option<&'static str> {
    const ROUTER_ADVERTISEMENT: u8 = 9;
    const EXPIRES_AT: usize = 8;
    let expires = find(body, 12, libc::RTA_CACHEINFO).and_then(|times| number(times, EXPIRES_AT));
    match body.get(5) {
        Some(&ROUTER_ADVERTISEMENT) => Some("was learnt from a router's advertisement"),
        _ if expires.is_some_and(|expires| expires != 0) => Some("expires"),
        _ => None,
    }
}

/// RTNH_F_PERVASIVE and RTNH_F_ONLINK: all else says how things stand.
const NEXTHOP_WISHES: u32 = 2 | 4;

fn settle_route(entry: &mut Vec<u8>) {
    let flags = number(entry, 8).unwrap_or_default() & NEXTHOP_WISHES;
    entry[8..12].copy_from_slice(&flags.to_ne_bytes());
    replace(entry, 12, |kind, value| {
        Some(if kind == libc::RTA_MULTIPATH { settled_hops(value) } else { value.to_vec() })
    });
}

/// `struct rtnexthop` one after the other: length, flags, hops, device.
fn settled_hops(value: &[u8]) -> Vec<u8> {
    let (mut hops, mut at) = (value.to_vec(), 0);
    while let Some(head) = hops.get_mut(at..at + 8) {
        head[2] &= 2 | 4;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        at += length.next_multiple_of(4).max(8);
    }
    hops
}
