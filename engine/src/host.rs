//! What this host is, as far as a program that comes from another one could notice.

use crate::error::{Error, Object, OnObject as _};
use crate::features::{self, Feature, Presence};
use crate::memory::tracker::{self, Method};
use crate::sys;
use std::fs;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub hostname: String,
    /// Another after every boot.
    pub boot_id: String,
    pub kernel_release: String,
    /// "`x86_64`"
    pub architecture: String,
    pub page_size: u32,
    /// The names of `/proc/cpuinfo`, sorted.
    pub cpu_features: Vec<String>,
    pub xsave_size: u32,
    pub xsave_features: u64,
    /// What the kernel can do, by our own names.
    pub features: Vec<String>,
    /// MemAvailable of `/proc/meminfo`.
    pub free_memory_bytes: u64,
}

impl Host {
    pub fn look() -> Result<Self, Error> {
        let names = nix::sys::utsname::uname().on("name", || Object::Host)?;
        let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
        let xsave = sys::cpu::xsave();
        Ok(Self {
            hostname: text(names.nodename()),
            boot_id: read("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            kernel_release: text(names.release()),
            architecture: text(names.machine()),
            page_size: 4096,
            cpu_features: cpu_features(&read("/proc/cpuinfo")?),
            xsave_size: xsave.size,
            xsave_features: xsave.features,
            features: kernel_features(),
            free_memory_bytes: free_memory(&read("/proc/meminfo")?),
        })
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).on("read", || Object::File { path: path.to_owned() })
}

/// Those of the first processor: a host whose processors differ is not supported by Linux either.
pub(crate) fn cpu_features(cpuinfo: &str) -> Vec<String> {
    let line =
        cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.trim().strip_prefix(':'));
    let mut features: Vec<String> =
        line.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    features.retain(|feature| is_seen_by_programs(feature));
    features.sort_unstable();
    features
}

/// Some flags describe the kernel's own choices or the machine's power management. No program can
/// use them, and they differ between kernels on the same processor.
fn is_seen_by_programs(feature: &str) -> bool {
    const OWN: [&str; 32] = [
        "aperfmperf",
        "arch_capabilities",
        "arch_perfmon",
        "constant_tsc",
        "cpuid",
        "cpuid_fault",
        "dtherm",
        "epb",
        "flush_l1d",
        "hypervisor",
        "ibpb",
        "ibrs",
        "ibrs_enhanced",
        "ida",
        "md_clear",
        "nonstop_tsc",
        "nopl",
        "pebs",
        "pln",
        "pti",
        "pts",
        "rep_good",
        "ssbd",
        "stibp",
        "tsc_known_freq",
        "tsc_reliable",
        "vnmi",
        "xtopology",
        "user_shstk",
        "bts",
        "tsc_deadline_timer",
        "tsc_adjust",
    ];
    !OWN.contains(&feature)
}

fn kernel_features() -> Vec<String> {
    let mut found = Vec::new();
    let mut have = |is: bool, name: &str| {
        if is {
            found.push(name.to_owned());
        }
    };
    have(may_be_here(&features::TIME_NAMESPACE), "time-namespace");
    have(may_be_here(&features::USERFAULTFD), "userfaultfd");
    match tracker::probe() {
        Some(Method::WriteProtect) => have(true, "write-protect-tracking"),
        Some(Method::SoftDirty) => have(true, "soft-dirty-tracking"),
        None => {}
    }
    found
}

/// Who may not try it out does not know better than to say so: whoever is to use it is root.
fn may_be_here(feature: &Feature) -> bool {
    !matches!(feature.look(), Presence::Missing(_))
}

pub(crate) fn free_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes =
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_described() {
        let host = Host::look().unwrap();
        assert!(host.cpu_features.iter().any(|feature| feature == "sse2"), "{host:?}");
        assert!(host.xsave_size >= 576 && host.free_memory_bytes > 0, "{host:?}");
        assert_eq!(host.boot_id.len(), 36);
    }

    #[test]
    fn what_the_kernel_can_do_has_the_names_that_other_hosts_know() {
        let features = kernel_features();
        assert!(features.iter().all(|name| NAMES.contains(&name.as_str())), "{features:?}");
        let is_tracking = |name: &&String| name.ends_with("-tracking");
        assert_eq!(features.iter().any(|name| is_tracking(&name)), tracker::probe().is_some());
    }

    const NAMES: [&str; 4] =
        ["time-namespace", "userfaultfd", "write-protect-tracking", "soft-dirty-tracking"];

    #[test]
    fn free_memory_is_what_the_kernel_calls_available() {
        assert_eq!(free_memory("MemFree: 1 kB\nMemAvailable:     24 kB\n"), 24 << 10);
    }
}
