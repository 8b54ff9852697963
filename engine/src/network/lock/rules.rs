//! What stands in the table of a lock, before it holds anything.

use super::super::nftables::expression::{Header, Part, asks, drop_members, tcp};
use super::super::nftables::{Batch, Field, Hook};

/// Before everything that others do by convention, and before fragments are put together (-400).
const PRIORITY: i32 = -1000;

/// The chains, their rules, and empty sets: `flows4`, `flows6`, and `gates4`, `gates6`, `gates` for
/// those on any address.
pub(super) fn rules(batch: Batch<'_>) -> Batch<'_> {
    let chains = batch
        .chain("prerouting", Hook::PreRouting, PRIORITY)
        .chain("input", Hook::Input, PRIORITY)
        .chain("output", Hook::Output, PRIORITY)
        .set("gates", &[Field::Port]);
    let rules = VERSIONS.iter().fold(chains, |batch, version| version.rules(version.sets(batch)));
    let to_any = [tcp(None), asks(), drop_members("gates", &[TO_PORT])].concat();
    rules.rule("input", &to_any)
}

/// A version of IP, its numbers in nf_tables, and where its header has the addresses.
struct Version {
    family: i32,
    field: Field,
    from_at: u32,
    to_at: u32,
    flows: &'static str,
    gates: &'static str,
}

const VERSIONS: [Version; 2] = [
    Version {
        family: libc::NFPROTO_IPV4,
        field: Field::Ipv4,
        from_at: 12,
        to_at: 16,
        flows: "flows4",
        gates: "gates4",
    },
    Version {
        family: libc::NFPROTO_IPV6,
        field: Field::Ipv6,
        from_at: 8,
        to_at: 24,
        flows: "flows6",
        gates: "gates6",
    },
];

impl Version {
    fn from(&self) -> [Part; 2] {
        [
            Part { field: self.field, header: Header::Network, offset: self.from_at },
            Part { field: Field::Port, header: Header::Transport, offset: 0 },
        ]
    }

    fn to(&self) -> [Part; 2] {
        [Part { field: self.field, header: Header::Network, offset: self.to_at }, TO_PORT]
    }

    fn sets<'a>(&self, batch: Batch<'a>) -> Batch<'a> {
        let end = [self.field, Field::Port];
        batch.set(self.flows, &[end, end].concat()).set(self.gates, &end)
    }

    /// The key of a connection has our end first, whichever way the packet goes.
    fn rules<'a>(&self, batch: Batch<'a>) -> Batch<'a> {
        let drop = |key: &[Part], set| drop_members(set, key);
        let incoming = drop(&[self.to(), self.from()].concat(), self.flows);
        let outgoing = drop(&[self.from(), self.to()].concat(), self.flows);
        let asking = [asks(), drop(&self.to(), self.gates)].concat();
        let tcp = tcp(Some(self.family));
        batch
            .rule("prerouting", &[tcp.clone(), incoming.clone()].concat())
            .rule("input", &[tcp.clone(), incoming].concat())
            .rule("input", &[tcp.clone(), asking].concat())
            .rule("output", &[tcp, outgoing].concat())
    }
}

const TO_PORT: Part = Part { field: Field::Port, header: Header::Transport, offset: 2 };
