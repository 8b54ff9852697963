//! What the lazy phase cost, for the closing summary.

use super::latency::Latencies;

#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Accesses that had to wait for a page of the source.
    pub faults: u64,
    /// Accesses to pages that the source never had, answered with zeros at once.
    pub zero_faults: u64,
    /// Pages that came because they were asked for: the faults and what lies around them.
    pub pages_by_fault: u64,
    /// Pages that came by themselves.
    pub pages_by_push: u64,
    /// Pages that came and had no place any more: dropped, unmapped, or there already.
    pub pages_discarded: u64,
    /// Children forked in the lazy phase.
    pub forks: u64,
    /// How long programs waited for a page, from our reading of the fault to its content.
    pub waits: Latencies,
}
