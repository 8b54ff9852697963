//! Memory that is understood, but that the destination cannot make yet.

use crate::error::Object;
use crate::memory::backing::{MappingKind, Origin};
use crate::memory::mapping::Mapping;
use crate::memory::vm_flags::VmFlags;
use crate::refusal::Refusal;
use std::collections::BTreeSet;

pub(super) fn examine(pid: i32, mappings: &[Mapping], kinds: &[MappingKind]) -> Vec<Refusal> {
    let all = mappings.iter().zip(kinds);
    let found = all.filter_map(|(mapping, kind)| refusal(mapping.object(pid), mapping, kind));
    // A library has five mappings; it is said once.
    let mut said = BTreeSet::new();
    found.filter(|refusal| said.insert(refusal.reason.clone())).collect()
}

fn refusal(object: Object, mapping: &Mapping, kind: &MappingKind) -> Option<Refusal> {
    let (reason, advice) = why(mapping, kind)?;
    Some(Refusal { object, reason, advice: advice.to_owned() })
}

fn why(mapping: &Mapping, kind: &MappingKind) -> Option<(String, &'static str)> {
    let guards = mapping.flags.has(VmFlags::GUARDS);
    match kind {
        _ if guards => {
            let reason = "has guard pages (MADV_GUARD_INSTALL)".to_owned();
            Some((reason, "Run the program with a C library that protects pages instead."))
        }
        MappingKind::Object { origin: Origin::SystemV { key, .. }, .. } => {
            let reason = format!("is shared memory of System V with key {key:#x}");
            Some((reason, "Run the program with POSIX or anonymous shared memory."))
        }
        MappingKind::Object { origin: Origin::Tmpfs { path }, .. } => {
            let reason = format!("shares the file {} of a tmpfs", path.display());
            Some((reason, "Put the file on storage that both hosts have."))
        }
        MappingKind::Object { origin: Origin::Deleted { path }, .. } => {
            let reason = format!("maps {}, which was deleted or replaced", path.display());
            Some((reason, "Restart the program, so that it maps the file that is there now."))
        }
        _ => None,
    }
}
