//! How much memory a tree has, by what is there and what is still to come.

use engine::image::TreeImage;
use engine::memory::PAGE_BYTES;
use std::fs;

/// Of what comes when it is needed.
pub(crate) fn missing_pages(image: &TreeImage) -> u64 {
    let runs = image.missing.iter().flat_map(|missing| missing.runs.chunks_exact(2));
    runs.fold(0_u64, |sum, run| sum.saturating_add(run[1]))
}

/// Of processes that are there already, with what is still to come.
pub(crate) fn bytes(pids: &[i32], missing_pages: u64) -> u64 {
    let here: u64 = pids.iter().map(|&pid| anonymous_bytes(pid)).sum();
    here.saturating_add(missing_pages.saturating_mul(PAGE_BYTES))
}

/// Resident and swapped, of shared memory what this process has touched: proc_pid_status(5).
fn anonymous_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0)
    };
    ["RssAnon:", "RssShmem:", "VmSwap:"].iter().map(|name| kib(name) << 10).sum()
}
