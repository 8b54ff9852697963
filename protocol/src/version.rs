//! Whether two hosts can move a tree between them, found out before anything is touched.
//!
//! Three things are versioned apart: the conversation (a range of numbers, of which the highest
//! common one is spoken), and each kind and each aspect (an image is written in the source's
//! version, and a destination reads its own version and the one before). So hosts can be upgraded
//! one by one, destinations first.

use crate::limits::{NAMES_MAX, PAGE_BYTES};
use crate::message::Refusal;
use std::collections::BTreeSet;

/// The versions of the conversation that this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// 2 has copies of a tree that stays: [`crate::copies`].
pub const PROTOCOL_MAX: u32 = 2;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub protocol_min: u32,
    #[prost(uint32, tag = "2")]
    pub protocol_max: u32,
    /// Name and version of the program, for logs only: nothing is decided by it.
    #[prost(string, tag = "3")]
    pub agent: String,
    #[prost(message, repeated, tag = "4")]
    pub kinds: Vec<Offered>,
    #[prost(message, repeated, tag = "5")]
    pub aspects: Vec<Offered>,
    #[prost(message, required, tag = "6")]
    pub host: HostFacts,
}

/// A kind or aspect and the version in which its image is written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct Offered {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HostFacts {
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    #[prost(string, tag = "2")]
    pub boot_id: String,
    #[prost(string, tag = "3")]
    pub kernel_release: String,
    /// The machine's name of uname(2): "`x86_64`".
    #[prost(string, tag = "4")]
    pub architecture: String,
    #[prost(uint32, tag = "5")]
    pub page_size: u32,
    /// What programs find when they ask the CPU, by the names of `/proc/cpuinfo`.
    #[prost(string, repeated, tag = "6")]
    pub cpu_features: Vec<String>,
    /// The size in bytes of the standard-format XSAVE area with everything enabled.
    #[prost(uint32, tag = "7")]
    pub xsave_size: u32,
    /// The state components that are enabled, as in XCR0.
    #[prost(uint64, tag = "8")]
    pub xsave_features: u64,
    /// What the kernel can do: "userfaultfd", "time-namespace", "pagemap-scan".
    #[prost(string, repeated, tag = "9")]
    pub features: Vec<String>,
    #[prost(uint64, tag = "10")]
    pub free_memory_bytes: u64,
}

/// What both sides will hold to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub protocol: u32,
    /// What the destination makes, in which versions.
    pub kinds: Vec<Offered>,
    pub aspects: Vec<Offered>,
}

/// One reason why these two hosts cannot move this tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("speaks protocol {theirs_min} to {theirs_max}, and this host {ours_min} to {ours_max}")]
    Protocol { ours_min: u32, ours_max: u32, theirs_min: u32, theirs_max: u32 },
    #[error("is {theirs}, and this host is {ours}")]
    Architecture { ours: String, theirs: String },
    #[error("has pages of {theirs} bytes, and this host of {ours}")]
    PageSize { ours: u32, theirs: u32 },
    #[error("lacks the CPU features {}", .names.join(", "))]
    CpuFeatures { names: Vec<String> },
    #[error("saves CPU state {theirs:#x}, and programs here may use {ours:#x}")]
    CpuState { ours: u64, theirs: u64 },
    #[error("does not know the {what} `{name}`, which the tree has")]
    Unknown { what: What, name: String },
    #[error("reads version {theirs} of the {what} `{name}`, and this host writes {ours}")]
    Version { what: What, name: String, ours: u32, theirs: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Kind,
    Aspect,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Aspect => "aspect",
        })
    }
}

/// The highest version of the conversation that both speak.
pub fn common_protocol(source: &Hello, destination: &Hello) -> Option<u32> {
    let highest = source.protocol_max.min(destination.protocol_max);
    let lowest = source.protocol_min.max(destination.protocol_min);
    (lowest <= highest).then_some(highest)
}

/// What the two hosts settle on, or everything that stands against it.
pub fn agree(source: &Hello, destination: &Hello) -> Result<Agreement, Vec<Mismatch>> {
    let protocol = common_protocol(source, destination);
    let mut mismatches = hosts_differ(&source.host, &destination.host);
    match protocol {
        Some(protocol) if mismatches.is_empty() => Ok(Agreement {
            protocol,
            kinds: destination.kinds.clone(),
            aspects: destination.aspects.clone(),
        }),
        Some(_) => Err(mismatches),
        None => {
            mismatches.insert(0, protocols_differ(source, destination));
            Err(mismatches)
        }
    }
}

/// What a tree has that the destination cannot make. `needed` are the kinds or aspects that the
/// inventory found; that the source knows others besides is no reason to refuse.
pub fn lacking(what: What, needed: &[Offered], destination: &Hello) -> Vec<Mismatch> {
    let offered = match what {
        What::Kind => &destination.kinds,
        What::Aspect => &destination.aspects,
    };
    needed.iter().filter_map(|needed| lacks(what, needed, offered)).collect()
}

fn lacks(what: What, needed: &Offered, offered: &[Offered]) -> Option<Mismatch> {
    let (name, ours) = (needed.name.clone(), needed.version);
    let Some(found) = offered.iter().find(|found| found.name == needed.name) else {
        return Some(Mismatch::Unknown { what, name });
    };
    let theirs = found.version;
    let read = ours == theirs || ours.checked_add(1) == Some(theirs);
    (!read).then_some(Mismatch::Version { what, name, ours, theirs })
}

fn protocols_differ(source: &Hello, destination: &Hello) -> Mismatch {
    Mismatch::Protocol {
        ours_min: source.protocol_min,
        ours_max: source.protocol_max,
        theirs_min: destination.protocol_min,
        theirs_max: destination.protocol_max,
    }
}

/// Everything that a program may have found out about its CPU must stay true: the C library
/// chooses its string functions once, at the start of the program.
fn hosts_differ(source: &HostFacts, destination: &HostFacts) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    if source.architecture != destination.architecture {
        let ours = source.architecture.clone();
        // Features of another architecture would only be noise.
        return vec![Mismatch::Architecture { ours, theirs: destination.architecture.clone() }];
    }
    let pages = [source.page_size, destination.page_size];
    if pages.iter().any(|&size| size as usize != PAGE_BYTES) {
        mismatches.push(Mismatch::PageSize { ours: pages[0], theirs: pages[1] });
    }
    let theirs: BTreeSet<_> = destination.cpu_features.iter().collect();
    let mut names = source.cpu_features.clone();
    names.retain(|name| !theirs.contains(name));
    if !names.is_empty() {
        mismatches.push(Mismatch::CpuFeatures { names });
    }
    if cpu_state_is_cut(source, destination) {
        let (ours, theirs) = (source.xsave_features, destination.xsave_features);
        mismatches.push(Mismatch::CpuState { ours, theirs });
    }
    mismatches
}

/// The signal frames of a program, and what it reserved for them, follow the size as well.
fn cpu_state_is_cut(source: &HostFacts, destination: &HostFacts) -> bool {
    source.xsave_features & !destination.xsave_features != 0
        || source.xsave_size > destination.xsave_size
}

impl Mismatch {
    /// As one of the blockers that the operator is shown.
    pub fn refusal(&self, destination: &Hello) -> Refusal {
        let host = format!("host {}", destination.host.hostname);
        Refusal::new(host, self.to_string(), self.advice())
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Protocol { ours_max, theirs_min, .. } if ours_max < theirs_min => {
                "Upgrade this host."
            }
            Self::Protocol { .. } | Self::Unknown { .. } => "Upgrade the destination.",
            Self::Version { ours, theirs, .. } if ours < theirs => "Upgrade this host.",
            Self::Version { .. } => "Upgrade the destination; destinations go first.",
            Self::Architecture { .. } | Self::PageSize { .. } => "Choose a host of the same kind.",
            Self::CpuFeatures { .. } | Self::CpuState { .. } => {
                "Choose a host whose CPU can do as much, or mask the features from the program."
            }
        }
    }
}

impl Hello {
    pub(crate) fn is_bounded(&self) -> bool {
        let host = &self.host;
        [self.kinds.len(), self.aspects.len(), host.cpu_features.len(), host.features.len()]
            .into_iter()
            .all(|length| length <= NAMES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(name: &str, version: u32) -> Offered {
        Offered { name: name.into(), version }
    }

    fn hello() -> Hello {
        let host = HostFacts {
            hostname: "hostb".into(),
            architecture: "x86_64".into(),
            page_size: 4096,
            cpu_features: vec!["avx".into(), "avx2".into()],
            xsave_size: 832,
            xsave_features: 7,
            ..HostFacts::default()
        };
        let kinds = vec![offered("pipe", 2), offered("eventfd", 1)];
        let aspects = vec![offered("signals", 3)];
        Hello { protocol_min: 3, protocol_max: 4, kinds, aspects, host, ..Hello::default() }
    }

    /// What stands against moving from `hello()` to a host that differs from it by `change`.
    fn against(change: impl FnOnce(&mut Hello)) -> Vec<Mismatch> {
        let mut destination = hello();
        change(&mut destination);
        agree(&hello(), &destination).err().unwrap_or_default()
    }

    #[test]
    fn equal_hosts_speak_the_highest_version() {
        assert_eq!(agree(&hello(), &hello()).unwrap().protocol, 4);
    }

    #[test]
    fn a_host_one_version_behind_is_spoken_to_in_its_version() {
        let mut older = hello();
        (older.protocol_min, older.protocol_max) = (2, 3);
        assert_eq!(agree(&hello(), &older).unwrap().protocol, 3);
        assert_eq!(agree(&older, &hello()).unwrap().protocol, 3);
    }

    #[test]
    fn ranges_that_do_not_meet_are_a_mismatch() {
        let found = against(|d| (d.protocol_min, d.protocol_max) = (5, 6));
        assert!(matches!(found[..], [Mismatch::Protocol { theirs_min: 5, .. }]));
        assert_eq!(found[0].advice(), "Upgrade this host.");
    }

    #[test]
    fn a_range_that_is_upside_down_meets_nothing() {
        let found = against(|d| (d.protocol_min, d.protocol_max) = (4, 3));
        assert!(matches!(found[..], [Mismatch::Protocol { .. }]));
    }

    #[test]
    fn missing_cpu_features_are_all_named() {
        let found = against(|d| d.host.cpu_features.clear());
        assert_eq!(found[0].to_string(), "lacks the CPU features avx, avx2");
    }

    #[test]
    fn a_cpu_that_can_do_more_is_welcome() {
        let found = against(|d| {
            d.host.cpu_features.push("avx512f".into());
            (d.host.xsave_features, d.host.xsave_size) = (0xe7, 2696);
        });
        assert_eq!(found, []);
    }

    #[test]
    fn cpu_state_that_would_be_cut_is_a_mismatch() {
        let lost = against(|d| d.host.xsave_features = 3);
        assert!(matches!(lost[..], [Mismatch::CpuState { ours: 7, theirs: 3 }]));
        let shorter = against(|d| d.host.xsave_size = 576);
        assert!(matches!(shorter[..], [Mismatch::CpuState { .. }]));
    }

    #[test]
    fn every_mismatch_is_found_and_not_just_the_first() {
        let found = against(|d| {
            d.protocol_max = 1;
            d.host.page_size = 16384;
            d.host.cpu_features.clear();
            d.host.xsave_features = 0;
        });
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn another_architecture_is_said_without_its_features() {
        let found = against(|d| d.host.architecture = "aarch64".into());
        assert!(matches!(found[..], [Mismatch::Architecture { .. }]));
    }

    #[test]
    fn what_the_tree_has_and_the_destination_lacks_is_named() {
        let found = lacking(What::Kind, &[offered("pipe", 2), offered("io_uring", 1)], &hello());
        assert_eq!(found.len(), 1);
        let refusal = found[0].refusal(&hello());
        assert_eq!(refusal.object, "host hostb");
        assert_eq!(refusal.reason, "does not know the kind `io_uring`, which the tree has");
    }

    #[test]
    fn an_image_is_read_by_its_own_version_and_the_next() {
        let reads = |version| lacking(What::Kind, &[offered("pipe", version)], &hello());
        assert_eq!(reads(2), []);
        assert_eq!(reads(1), []);
        assert!(matches!(reads(3)[..], [Mismatch::Version { ours: 3, theirs: 2, .. }]));
        let old = lacking(What::Aspect, &[offered("signals", 1)], &hello());
        assert!(matches!(old[..], [Mismatch::Version { ours: 1, theirs: 3, .. }]));
    }
}
