//! What the link between the two hosts is like.

use crate::hosts::{Host, TwoHosts};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Road {
    pub mtu: u32,
    /// By tc-tbf(8), a second, with its headers. None: as fast as the machine is.
    pub megabit: Option<u32>,
}

/// 10 Gbit/s is more than a processor encrypts: what is as fast as it goes stands in its place.
pub(super) const ROADS: &[Road] = &[
    Road { mtu: 1500, megabit: None },
    Road { mtu: 9000, megabit: None },
    Road { mtu: 1500, megabit: Some(1000) },
    Road { mtu: 1500, megabit: Some(100) },
];

/// A router's queue: what would wait longer is lost.
const QUEUE: &str = "50ms";
/// What may pass at once. Larger than any segment, which would be cut in pieces by the processor, and less than
/// a tenth of what passes in 50 ms.
const BURST: &str = "66kb";

impl Road {
    pub(super) fn lay(self, hosts: &TwoHosts) -> Result<()> {
        for host in [&hosts.a, &hosts.b] {
            self.lay_from(host).with_context(|| format!("make the link of {}", host.name()))?;
        }
        Ok(())
    }

    fn lay_from(self, host: &Host) -> Result<()> {
        let mtu = self.mtu.to_string();
        host.run(&["ip", "link", "set", "eth0", "mtu", &mtu])?.success()?;
        let Some(megabit) = self.megabit else { return Ok(()) };
        let rate = format!("{megabit}mbit");
        let queue = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate];
        let bounds = ["burst", BURST, "latency", QUEUE];
        host.run(&[&queue[..], &bounds[..]].concat())?.success().map(drop)
    }

    /// How much passes in a few seconds, at most `mib`. So much of a move's pages that what is decided while
    /// they are sent (whether they are compressed) can show.
    pub(super) fn mib(self, mib: u32) -> u32 {
        self.megabit.map_or(mib, |megabit| (megabit * 2).clamp(1, mib))
    }

    pub(super) fn name(self) -> String {
        match self.megabit {
            None => format!("MTU {}", self.mtu),
            Some(megabit) => format!("MTU {}, {megabit} Mbit/s", self.mtu),
        }
    }
}
