//! What the kernel counts of TCP on a host: snmp_counter.rst in its documentation.

use crate::hosts::Host;
use anyhow::{Context, Result};

/// Since the host was made, of all connections: `ActiveOpens`, `RetransSegs`.
pub fn tcp_counter(host: &Host, name: &str) -> Result<u64> {
    let counters = host.run(&["cat", "/proc/net/snmp"])?.success()?;
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("two lines of TCP")?;
    let mut counters = names.split(' ').zip(values.split(' '));
    let found = counters.find(|(other, _)| *other == name);
    Ok(found.with_context(|| format!("the counter {name}"))?.1.parse()?)
}
