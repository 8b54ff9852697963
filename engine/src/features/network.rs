//! What is done to a host's network around a move.

use super::{Feature, NET_ADMIN, NET_RAW, Need, Permission, SYS_ADMIN};
use crate::network::{Lock, Namespace};
use crate::sys::sock;

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "nf_tables (NFT_TABLE_F_OWNER)",
        since: "5.12",
        need: Need::Useful,
        loss: "Trees with TCP connections, or that wait for them, cannot be moved: the \
               connections cannot be kept silent.",
        advice: "Use a kernel of that version or newer with CONFIG_NF_TABLES_INET, and load the \
                 module nf_tables.",
        permission: Permission::of(NET_ADMIN),
        probe: Lock::rehearse,
    },
    Feature {
        name: "packet(7)",
        since: "2.2",
        need: Need::Useful,
        loss: "Neighbours are not told of an address that has moved, and what comes meanwhile for \
               its connections is sent again by their peers.",
        advice: "Use a kernel with CONFIG_PACKET, and load the module af_packet.",
        permission: Permission::of(NET_RAW),
        probe: || sock::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map(drop),
    },
    Feature {
        name: "network_namespaces(7)",
        since: "2.6.29",
        need: Need::Useful,
        loss: "Trees in a network namespace of their own cannot come.",
        advice: "Use a kernel with CONFIG_NET_NS.",
        permission: Permission::of(SYS_ADMIN),
        probe: || Namespace::make().map(drop).map_err(|error| error.source),
    },
    Feature {
        name: "veth(4)",
        since: "2.6.24",
        need: Need::Useful,
        loss: "Trees in a network namespace of their own cannot come with their cables.",
        advice: "Use a kernel with CONFIG_VETH, and load the module veth.",
        permission: Permission::of(SYS_ADMIN),
        probe: Namespace::rehearse_a_cable,
    },
];
