//! Rules that choose a table of routes, ip-rule(8).

use super::{OF_V4, OF_V6, Table, number};

/// FRA_* of linux/fib_rules.h, but for FRA_GOTO's target, which the kernel resolves by itself.
pub(in super::super) const RULES: Table = Table {
    name: "rule",
    get: libc::RTM_GETRULE,
    add: libc::RTM_NEWRULE,
    remove: libc::RTM_DELRULE,
    requests: &[OF_V4, OF_V6],
    fixed_bytes: 12,
    kept: &[1, 2, 3, 4, 6, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 24, 25],
    told: &[],
    concerns: |_| true,
    blocker: |_| None,
    settle: |entry| settle_rule(entry),
};

/// FIB_RULE_INVERT and FIB_RULE_FIND_SADDR.
const RULE_WISHES: u32 = 2 | 0x1_0000;

/// `struct fib_rule_hdr`.
fn settle_rule(entry: &mut [u8]) {
    let flags = number(entry, 8).unwrap_or_default() & RULE_WISHES;
    entry[8..12].copy_from_slice(&flags.to_ne_bytes());
}
