//! Neighbours that somebody has set, and those that are answered for by proxy. Others are found again.

use super::{FIXED_BYTES_MAX, OF_V4, OF_V6, Table, V4, V6};

const NDA_PROTOCOL: u16 = 12;
const PROXIES_V4: [u8; FIXED_BYTES_MAX] = [V4, 0, 0, 0, 0, 0, 0, 0, 0, 0, libc::NTF_PROXY, 0];
const PROXIES_V6: [u8; FIXED_BYTES_MAX] = [V6, 0, 0, 0, 0, 0, 0, 0, 0, 0, libc::NTF_PROXY, 0];

pub(in super::super) const NEIGHBOURS: Table = Table {
    name: "neighbour",
    get: libc::RTM_GETNEIGH,
    add: libc::RTM_NEWNEIGH,
    remove: libc::RTM_DELNEIGH,
    requests: &[OF_V4, OF_V6, PROXIES_V4, PROXIES_V6],
    fixed_bytes: 12,
    kept: &[libc::NDA_DST, libc::NDA_LLADDR, NDA_PROTOCOL],
    told: &[libc::NDA_CACHEINFO, libc::NDA_PROBES],
    concerns: is_somebodys_neighbour,
    blocker: |_| None,
    settle: |_| (),
};

/// `struct ndmsg`: what is permanent, or answered for by proxy.
fn is_somebodys_neighbour(body: &[u8]) -> bool {
    let state = body.get(8..10).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
    let flags = body.get(10).copied().unwrap_or_default();
    state & libc::NUD_PERMANENT != 0 || flags & libc::NTF_PROXY != 0
}
