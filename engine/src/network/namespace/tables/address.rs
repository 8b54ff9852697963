//! Addresses of the devices: their scope, label, metric and lifetimes.

use super::{OF_V4, OF_V6, Table, number, replace};

/// IFA_RT_PRIORITY and IFA_PROTO of linux/if_addr.h.
const RT_PRIORITY: u16 = 9;
const PROTO: u16 = 11;

pub(in super::super) const ADDRESSES: Table = Table {
    name: "address",
    get: libc::RTM_GETADDR,
    add: libc::RTM_NEWADDR,
    remove: libc::RTM_DELADDR,
    requests: &[OF_V4, OF_V6],
    fixed_bytes: 8,
    kept: &[
        libc::IFA_ADDRESS,
        libc::IFA_LOCAL,
        libc::IFA_LABEL,
        libc::IFA_BROADCAST,
        libc::IFA_CACHEINFO,
        libc::IFA_FLAGS,
        RT_PRIORITY,
        PROTO,
    ],
    told: &[],
    concerns: |_| true,
    blocker: |_| None,
    settle: settle_address,
};

/// What the kernel finds out by itself, and what we set to be quick.
const ADDRESS_STATE: u32 = libc::IFA_F_SECONDARY
    | libc::IFA_F_NODAD
    | libc::IFA_F_OPTIMISTIC
    | libc::IFA_F_DADFAILED
    | libc::IFA_F_DEPRECATED
    | libc::IFA_F_TENTATIVE
    | libc::IFA_F_PERMANENT;

/// `struct ifa_cacheinfo`: how long it is preferred and valid, in seconds, then two times of this
/// host. Where it is for ever nothing need be said.
fn settle_address(entry: &mut Vec<u8>) {
    entry[2] = 0;
    replace(entry, 8, |kind, value| match kind {
        libc::IFA_CACHEINFO => {
            let for_ever = value.get(..8) == Some(&[0xff; 8][..]);
            let lasts = [value.get(..8).unwrap_or_default(), &[0; 8]].concat();
            (!for_ever).then_some(lasts)
        }
        libc::IFA_FLAGS => {
            let flags = number(value, 0).unwrap_or_default() & !ADDRESS_STATE;
            Some(flags.to_ne_bytes().to_vec())
        }
        _ => Some(value.to_vec()),
    });
}

/// Nobody is asked whether he has it: for a moment the neighbours still think that it is elsewhere.
pub(super) fn without_asking(entry: &[u8]) -> Vec<u8> {
    let mut entry = entry.to_vec();
    replace(&mut entry, 8, |kind, value| {
        let flags = number(value, 0).unwrap_or_default() | libc::IFA_F_NODAD;
        Some(if kind == libc::IFA_FLAGS { flags.to_ne_bytes().to_vec() } else { value.to_vec() })
    });
    entry
}
