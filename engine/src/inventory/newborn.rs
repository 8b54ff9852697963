//! Processes that were just started, and may be gone before the freeze.
//!
//! A compiler's temporary file is open while we look, and is deleted before the destination has
//! looked for it. What a newborn process has open is no reason to refuse: if it is still there in
//! the freeze and the destination lacks it, the move fails then, and the tree goes on here.

use crate::descriptors::DescriptorsImage;
use crate::error::{Error, Object, OnObject as _};
use crate::tree::Process;
use std::collections::BTreeSet;
use std::{fs, io};

/// Longer than most programs that are started to do one thing.
const NEWBORN_S: u64 = 2;

/// The newborn among a tree's processes; its root never counts, for it was asked for.
pub(super) fn among(alive: &[&Process]) -> Result<BTreeSet<i32>, Error> {
    let path = "/proc/uptime";
    let uptime = fs::read_to_string(path).and_then(|text| seconds(&text));
    let uptime = uptime.on("read", || Object::File { path: path.to_owned() })?;
    let ticks_per_second = procfs::ticks_per_second();
    let age = |p: &Process| uptime.saturating_sub(p.start_ticks() / ticks_per_second);
    let descendants = alive.iter().skip(1);
    Ok(descendants.filter(|process| age(process) < NEWBORN_S).map(|p| p.pid).collect())
}

pub(super) fn seconds(text: &str) -> io::Result<u64> {
    let whole = text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok());
    whole.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The outline without what only these processes have open.
pub(super) fn without_theirs(
    mut outline: DescriptorsImage,
    newborn: &BTreeSet<i32>,
) -> DescriptorsImage {
    outline.descriptors.retain(|one| !newborn.contains(&one.pid));
    let kept: BTreeSet<u32> = outline.descriptors.iter().map(|one| one.description).collect();
    outline.descriptions.retain(|one| kept.contains(&one.id));
    let objects: BTreeSet<u32> = outline.descriptions.iter().map(|one| one.object).collect();
    outline.objects.retain(|one| objects.contains(&one.id));
    outline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::{DescriptorImage, ObjectImage};
    use crate::kinds::DescriptionImage;

    #[test]
    fn only_what_nobody_else_has_open_is_left_out() {
        let outline = DescriptorsImage {
            objects: [1, 2].map(|id| ObjectImage { id, ..ObjectImage::default() }).to_vec(),
            descriptions: [(1, 1), (2, 2)]
                .map(|(id, object)| DescriptionImage { id, object, ..DescriptionImage::default() })
                .to_vec(),
            descriptors: [(10, 1), (20, 1), (20, 2)]
                .map(|(pid, description)| DescriptorImage {
                    pid,
                    fd: 3,
                    description,
                    close_on_exec: false,
                })
                .to_vec(),
            in_flight: Vec::new(),
        };
        let left = without_theirs(outline, &BTreeSet::from([20]));
        assert_eq!(left.objects.iter().map(|one| one.id).collect::<Vec<_>>(), [1]);
        assert_eq!(left.descriptors.len(), 1);
    }

    #[test]
    fn uptime_is_in_seconds() {
        assert_eq!(seconds("12345.67 8.9\n").unwrap(), 12345);
        assert!(seconds("").is_err());
    }
}
