//! The mappings of a stub: brought from what they are to what the source has now.
//!
//! What stays the same keeps the pages that were filled in, so the comparison is by ranges of
//! addresses and what lies behind them, not by mappings: an mprotect(2) at the source splits a
//! mapping and changes nothing of its content.

use super::Stub;
use super::shared_memory::{SharedMemories, fetch};
use crate::args;
use crate::batch::{Arg, Batch};
use crate::error::{Error, Object, OnObject as _};
use crate::memory::mapping_image::{AdviceImage, BackingImage, FileImage, MappingImage};
use crate::memory::{PageSet, Run};
use crate::paths;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What has to be done to one range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Unmap,
    Map,
    /// The same memory, seen with other rights or advice.
    Adjust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    start: u64,
    end: u64,
    step: Step,
    /// Index of the mapping that is wanted there; of the present one for `Unmap`.
    mapping: usize,
}

/// Returns the ranges (start, end) whose pages are gone, because something else is there now.
pub(super) fn apply(
    stub: &mut Stub,
    wanted: &[MappingImage],
    shared: &mut SharedMemories,
) -> Result<Vec<(u64, u64)>, Error> {
    super::arena::make_way(stub, wanted)?;
    let changes = changes(&stub.mappings, wanted);
    let (mut batch, mut files) = (Batch::new(), Files::default());
    for change in changes.iter().filter(|change| change.step == Step::Unmap) {
        let object = Object::Mapping { pid: stub.pid, start: change.start, end: change.end };
        let args = args![change.start, change.end - change.start];
        batch.call("unmap", &object, libc::SYS_munmap, args);
        run_if_full(stub, &mut batch, &mut files)?;
    }
    for change in &changes {
        match change.step {
            Step::Unmap => {}
            Step::Map => {
                let wanted = &wanted[change.mapping];
                map(stub, wanted, *change, (shared, &mut files), &mut batch)?;
            }
            Step::Adjust => adjust(stub, &wanted[change.mapping], *change, &mut batch),
        }
        run_if_full(stub, &mut batch, &mut files)?;
    }
    stub.run(&batch)?;
    stub.mappings = wanted.to_vec();
    let lost = changes.iter().filter(|change| change.step != Step::Adjust);
    Ok(lost.map(|change| (change.start, change.end)).collect())
}

fn run_if_full(stub: &Stub, batch: &mut Batch, files: &mut Files) -> Result<(), Error> {
    if batch.is_full() {
        stub.run(&std::mem::take(batch))?;
        files.0.clear();
    }
    Ok(())
}

/// What a child has of its parent's mappings right after fork(2): locks are not inherited, and
/// MADV_DONTFORK leaves a mapping out.
pub(super) fn inherited(mappings: &[MappingImage]) -> Vec<MappingImage> {
    let unlocked = |mapping: &MappingImage| {
        let advice = AdviceImage { locked: false, locked_on_fault: false, ..advice(mapping) };
        MappingImage { advice: Some(advice), ..mapping.clone() }
    };
    mappings.iter().filter(|mapping| !advice(mapping).dont_fork).map(unlocked).collect()
}

/// Whose pages a child does not get. The advice may be younger than the child at the source; then
/// pages that are shared there are not shared here, but they are right.
pub(super) fn is_emptied_by_fork(mapping: &MappingImage) -> bool {
    let advice = advice(mapping);
    // MAP_DROPPABLE implies MADV_WIPEONFORK (Linux 6.11).
    advice.dont_fork || advice.wipe_on_fork || advice.droppable
}

/// The private pages of a `parent` that are there in its child as well, when that was forked and
/// then brought to its own mappings.
pub(crate) fn kept_by_fork(parent: &[MappingImage], child: &[MappingImage]) -> PageSet {
    let mut kept = PageSet::new();
    for (start, end) in ranges(parent, child) {
        let (Some((_, old)), Some((_, new))) = (find(parent, start), find(child, start)) else {
            continue;
        };
        if !old.shared && !is_emptied_by_fork(old) && same_memory(old, new, start) {
            kept.extend([Run::covering(start, end)]);
        }
    }
    kept
}

/// The ranges in which neither of two lists has a boundary.
fn ranges(one: &[MappingImage], other: &[MappingImage]) -> Vec<(u64, u64)> {
    let mut bounds: Vec<u64> =
        one.iter().chain(other).flat_map(|mapping| [mapping.start, mapping.end]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Compares two sorted lists range by range; neighbouring ranges with one answer become one.
fn changes(present: &[MappingImage], wanted: &[MappingImage]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for (start, end) in ranges(present, wanted) {
        let Some((step, mapping)) = step(find(present, start), find(wanted, start), start) else {
            continue;
        };
        match changes.last_mut() {
            Some(last) if last.end == start && last.step == step && last.mapping == mapping => {
                last.end = end;
            }
            _ => changes.push(Change { start, end, step, mapping }),
        }
    }
    changes
}

type Found<'a> = Option<(usize, &'a MappingImage)>;

fn find(mappings: &[MappingImage], address: u64) -> Found<'_> {
    let index = mappings.partition_point(|mapping| mapping.end <= address);
    let mapping = mappings.get(index)?;
    // The kernel's own pages are made together, elsewhere.
    (mapping.start <= address && !is_special(mapping)).then_some((index, mapping))
}

fn step(present: Found<'_>, wanted: Found<'_>, at: u64) -> Option<(Step, usize)> {
    match (present, wanted) {
        (None, None) => None,
        (Some((index, _)), None) => Some((Step::Unmap, index)),
        (None, Some((index, _))) => Some((Step::Map, index)),
        (Some((_, old)), Some((index, new))) if !same_memory(old, new, at) => {
            Some((Step::Map, index))
        }
        (Some((_, old)), Some((index, new))) => {
            let alike = old.protection == new.protection && old.advice == new.advice;
            (!alike).then_some((Step::Adjust, index))
        }
    }
}

fn same_memory(old: &MappingImage, new: &MappingImage, at: u64) -> bool {
    let offset = |m: &MappingImage| match m.backing {
        Some(BackingImage::File(_) | BackingImage::Object(_)) => {
            m.offset.wrapping_add(at - m.start)
        }
        _ => 0,
    };
    let alike = match (&old.backing, &new.backing) {
        // Which part of it is the heap is known to another place (prctl_set_mm).
        (Some(BackingImage::Anonymous(old)), Some(BackingImage::Anonymous(new))) => {
            old.is_dev_zero == new.is_dev_zero
        }
        (Some(BackingImage::File(old)), Some(BackingImage::File(new))) => {
            old.path == new.path && old.identity == new.identity
        }
        (old, new) => old == new,
    };
    let grows = |m: &MappingImage| advice(m).grows_down;
    alike && old.shared == new.shared && grows(old) == grows(new) && offset(old) == offset(new)
}

/// The kernel's own pages, which `vdso` brings in.
pub(super) fn is_special(mapping: &MappingImage) -> bool {
    matches!(mapping.backing, Some(BackingImage::Special(_)))
}

fn advice(mapping: &MappingImage) -> AdviceImage {
    mapping.advice.unwrap_or_default()
}

fn map(
    stub: &Stub,
    mapping: &MappingImage,
    change: Change,
    (shared, files): (&mut SharedMemories, &mut Files),
    batch: &mut Batch,
) -> Result<(), Error> {
    let object = Object::Mapping { pid: stub.pid, start: change.start, end: change.end };
    let offset = mapping.offset.wrapping_add(change.start - mapping.start);
    match &mapping.backing {
        Some(BackingImage::Anonymous(kind)) if kind.is_dev_zero => {
            let name = batch.string("/dev/zero");
            let args = args![libc::AT_FDCWD, name, libc::O_RDWR | libc::O_CLOEXEC, 0];
            let fd = batch.call("open /dev/zero for", &object, libc::SYS_openat, args);
            mmap(&object, mapping, change, fd.into(), offset, batch);
            batch.call("close /dev/zero for", &object, libc::SYS_close, args![fd]);
        }
        Some(BackingImage::Anonymous(_)) => {
            mmap(&object, mapping, change, Arg::from(-1), 0, batch);
        }
        Some(BackingImage::File(file)) => {
            let fd = fetch(files.open(file)?, &object, batch);
            mmap(&object, mapping, change, fd.into(), offset, batch);
            batch.call("close the file behind", &object, libc::SYS_close, args![fd]);
        }
        Some(BackingImage::Object(reference)) => {
            let fd = fetch(shared.descriptor(reference.space)?, &object, batch);
            mmap(&object, mapping, change, fd.into(), offset, batch);
            batch.call("close the object behind", &object, libc::SYS_close, args![fd]);
        }
        Some(BackingImage::Special(_)) | None => {
            return Err(Error::invalid("map", object, "the layout does not say what is in it"));
        }
    }
    Ok(())
}

/// Files that a batch hands to the stub, open here until it has run. They are opened by us and not
/// by the stub, so that a hostile path is looked at before it is opened.
#[derive(Default)]
struct Files(BTreeMap<(Vec<u8>, bool), OwnedFd>);

impl Files {
    fn open(&mut self, file: &FileImage) -> Result<BorrowedFd<'_>, Error> {
        let held = match self.0.entry((file.path.clone(), file.is_opened_for_writing)) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(place) => {
                let mode = if file.is_opened_for_writing { libc::O_RDWR } else { libc::O_RDONLY };
                let path = || String::from_utf8_lossy(&file.path).into_owned();
                let opened = paths::open_regular(&file.path, mode);
                place.insert(opened.on("open", || Object::File { path: path() })?)
            }
        };
        let held: &OwnedFd = held;
        Ok(held.as_fd())
    }
}

fn mmap(
    object: &Object,
    mapping: &MappingImage,
    change: Change,
    fd: Arg,
    offset: u64,
    batch: &mut Batch,
) {
    let wanted = mapping.protection;
    // A private mapping that counts against the commit limit was writable once; it is made so
    // again first, or the kernel would not count it.
    let counted = advice(mapping).accounted && !mapping.shared;
    let first = if counted { wanted | libc::PROT_WRITE } else { wanted };
    let length = change.end - change.start;
    let how = mmap_flags(mapping);
    let args = &[change.start.into(), length.into(), first.into(), how.into(), fd, offset.into()];
    batch.call("map", object, libc::SYS_mmap, args);
    if first != wanted {
        let args = args![change.start, length, wanted];
        batch.call("protect", object, libc::SYS_mprotect, args);
    }
    advise(change, object, mapping, batch);
}

fn mmap_flags(mapping: &MappingImage) -> i32 {
    let kind = if mapping.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let anonymous =
        matches!(&mapping.backing, Some(BackingImage::Anonymous(kind)) if !kind.is_dev_zero);
    let flag = |is: bool, flag: i32| if is { flag } else { 0 };
    kind | libc::MAP_FIXED
        | flag(anonymous, libc::MAP_ANONYMOUS)
        | flag(advice(mapping).grows_down, libc::MAP_GROWSDOWN)
        | flag(advice(mapping).no_reserve, libc::MAP_NORESERVE)
}

fn adjust(stub: &Stub, mapping: &MappingImage, change: Change, batch: &mut Batch) {
    let object = Object::Mapping { pid: stub.pid, start: change.start, end: change.end };
    let args = args![change.start, change.end - change.start, mapping.protection];
    batch.call("protect", &object, libc::SYS_mprotect, args);
    advise(change, &object, mapping, batch);
}

/// madvise(2), mlock2(2) and PR_SET_VMA of prctl(2), for what smaps shows.
fn advise(change: Change, object: &Object, mapping: &MappingImage, batch: &mut Batch) {
    let length = change.end - change.start;
    let given = advice(mapping);
    let advices = [
        (given.sequential_read, libc::MADV_SEQUENTIAL),
        (given.random_read, libc::MADV_RANDOM),
        (given.dont_fork, libc::MADV_DONTFORK),
        (given.wipe_on_fork, libc::MADV_WIPEONFORK),
        (given.dont_dump, libc::MADV_DONTDUMP),
        (given.huge_pages, libc::MADV_HUGEPAGE),
        (given.no_huge_pages, libc::MADV_NOHUGEPAGE),
        (given.mergeable, libc::MADV_MERGEABLE),
    ];
    for (_, number) in advices.iter().filter(|(is, _)| *is) {
        // A kernel without huge pages or same-page merging says EINVAL, and the program runs as
        // well.
        batch.try_call(libc::SYS_madvise, args![change.start, length, *number]);
    }
    if !mapping.name.is_empty() {
        let name = batch.string(&mapping.name);
        let args = args![PR_SET_VMA, PR_SET_VMA_ANON_NAME, change.start, length, name];
        // A kernel without CONFIG_ANON_VMA_NAME says EINVAL.
        batch.try_call(libc::SYS_prctl, args);
    }
    if given.locked {
        let on_fault = u32::from(given.locked_on_fault);
        batch.call("lock", object, libc::SYS_mlock2, args![change.start, length, on_fault]);
    }
}

/// Linux 5.17.
const PR_SET_VMA: i32 = 0x5356_4d41;
const PR_SET_VMA_ANON_NAME: i32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::mapping_image::AnonymousImage;

    fn anonymous(start: u64, end: u64, advice: AdviceImage) -> MappingImage {
        let backing = BackingImage::Anonymous(AnonymousImage::default());
        let (advice, backing) = (Some(advice), Some(backing));
        MappingImage { start, end, advice, backing, ..MappingImage::default() }
    }

    fn plain(start: u64, end: u64) -> MappingImage {
        anonymous(start, end, AdviceImage::default())
    }

    fn kept(parent: &[MappingImage], child: &[MappingImage]) -> Vec<(u64, u64)> {
        kept_by_fork(parent, child).runs().map(|run| (run.address, run.end())).collect()
    }

    #[test]
    fn a_child_keeps_what_both_have_however_it_is_cut() {
        let child = [plain(0x2000, 0x5000), plain(0x5000, 0x6000), plain(0x9000, 0xa000)];
        assert_eq!(kept(&[plain(0x1000, 0x7000)], &child), [(0x2000, 0x6000)]);
    }

    #[test]
    fn memory_of_another_kind_is_not_kept() {
        let shared = [MappingImage { shared: true, ..plain(0x1000, 0x2000) }];
        assert!(kept(&shared, &shared).is_empty(), "it is carried by object");
        assert!(kept(&[plain(0x1000, 0x2000)], &shared).is_empty());
        let stack = AdviceImage { grows_down: true, ..AdviceImage::default() };
        assert!(kept(&[plain(0, 0x1000)], &[anonymous(0, 0x1000, stack)]).is_empty());
    }

    #[test]
    fn what_a_fork_leaves_out_is_neither_kept_nor_inherited_locked() {
        let none = AdviceImage::default();
        for advice in [
            AdviceImage { dont_fork: true, ..none },
            AdviceImage { wipe_on_fork: true, ..none },
            AdviceImage { droppable: true, ..none },
        ] {
            let parent = [anonymous(0x1000, 0x2000, advice)];
            assert!(kept(&parent, &[plain(0x1000, 0x2000)]).is_empty(), "{advice:?}");
            assert_eq!(inherited(&parent).is_empty(), advice.dont_fork);
        }
        let locked = AdviceImage { locked: true, locked_on_fault: true, ..none };
        let locked = [anonymous(0x1000, 0x2000, locked)];
        assert_eq!(inherited(&locked), [plain(0x1000, 0x2000)], "so it is locked again");
        assert_eq!(kept(&locked, &locked), [(0x1000, 0x2000)]);
    }
}
