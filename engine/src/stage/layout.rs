//! The mappings of a stub: brought from what they are to what the source has now.
//!
//! What stays the same keeps the pages that were filled in, so the comparison is by ranges of
//! addresses and what lies behind them, not by mappings: an mprotect(2) at the source splits a
//! mapping and changes nothing of its content.

use super::Stub;
use super::shared_memory::{SharedMemories, fetch};
use crate::args;
use crate::batch::{Arg, Batch, Call};
use crate::error::{Error, Object};
use crate::memory::mapping_image::{AdviceImage, BackingImage, FileImage, MappingImage};

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
    check(stub.pid, wanted)?;
    super::arena::make_way(stub, wanted)?;
    let changes = changes(&stub.mappings, wanted);
    let mut batch = Batch::new();
    for change in changes.iter().filter(|change| change.step == Step::Unmap) {
        let object = Object::Mapping { pid: stub.pid, start: change.start, end: change.end };
        let args = args![change.start, change.end - change.start];
        batch.call("unmap", &object, libc::SYS_munmap, args);
        run_if_full(stub, &mut batch)?;
    }
    for change in &changes {
        match change.step {
            Step::Unmap => {}
            Step::Map => map(stub, &wanted[change.mapping], *change, shared, &mut batch)?,
            Step::Adjust => adjust(stub, &wanted[change.mapping], *change, &mut batch),
        }
        run_if_full(stub, &mut batch)?;
    }
    stub.run(&batch)?;
    stub.mappings = wanted.to_vec();
    let lost = changes.iter().filter(|change| change.step != Step::Adjust);
    Ok(lost.map(|change| (change.start, change.end)).collect())
}

fn run_if_full(stub: &Stub, batch: &mut Batch) -> Result<(), Error> {
    if batch.is_full() {
        stub.run(&std::mem::take(batch))?;
    }
    Ok(())
}

/// Mappings come from outside: sorted, aligned, apart, and inside of user space.
fn check(pid: i32, mappings: &[MappingImage]) -> Result<(), Error> {
    let mut end = 0;
    for mapping in mappings.iter().filter(|mapping| !is_special(mapping)) {
        let aligned = mapping.start % 4096 == 0 && mapping.end % 4096 == 0;
        if mapping.start < end || mapping.start >= mapping.end || !aligned {
            let part = format!("mapping {:#x}-{:#x} of process {pid}", mapping.start, mapping.end);
            let why = "it overlaps another one, or is empty or not aligned";
            return Err(Error::invalid("read the", Object::Image { part }, why));
        }
        end = mapping.end;
    }
    Ok(())
}

/// Compares two sorted lists range by range; neighbouring ranges with one answer become one.
fn changes(present: &[MappingImage], wanted: &[MappingImage]) -> Vec<Change> {
    let mut bounds: Vec<u64> =
        present.iter().chain(wanted).flat_map(|mapping| [mapping.start, mapping.end]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut changes: Vec<Change> = Vec::new();
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
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
    shared: &mut SharedMemories,
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
            let fd = open(file, batch);
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

fn open(file: &FileImage, batch: &mut Batch) -> Call {
    let path = String::from_utf8_lossy(&file.path).into_owned();
    let name = batch.string(&file.path);
    let mode = if file.is_opened_for_writing { libc::O_RDWR } else { libc::O_RDONLY };
    let args = args![libc::AT_FDCWD, name, mode | libc::O_CLOEXEC, 0];
    batch.call("open", &Object::File { path }, libc::SYS_openat, args)
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
