//! The kernel's own pages in a stub: vdso and vvar, where the source's program expects them.

use super::Stub;
use crate::arch::x86_64::vdso::{is_same, redirect};
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::memory::mapping;
use crate::memory::mapping_image::{BackingImage, MappingImage, SpecialImage};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Linux 4.9, with CONFIG_CHECKPOINT_RESTORE.
const ARCH_MAP_VDSO_64: u32 = 0x2003;

/// The vdso of this process, which is the one that every process of this kernel has.
pub(crate) fn ours() -> Result<Vec<u8>, Error> {
    of_process(std::process::id().cast_signed()).map(Option::unwrap_or_default)
}

/// The bytes of a process's vdso, if it has one.
pub(crate) fn of_process(pid: i32) -> Result<Option<Vec<u8>>, Error> {
    let object = || Object::Process { pid };
    let Some((start, end)) = placed(pid)?.vdso else { return Ok(None) };
    let mut image = vec![0; usize::try_from(end - start).expect("a few pages")];
    let memory =
        std::fs::File::open(format!("/proc/{pid}/mem")).on("open the memory of", object)?;
    memory.read_exact_at(&mut image, start).on("read the vdso of", object)?;
    Ok(Some(image))
}

/// Where the kernel's pages are in a process now.
#[derive(Debug, Default)]
struct Placed {
    vdso: Option<(u64, u64)>,
    all: Vec<(u64, u64)>,
}

fn placed(pid: i32) -> Result<Placed, Error> {
    let object = || Object::Process { pid };
    let text = std::fs::read(format!("/proc/{pid}/maps")).on("read the mappings of", object)?;
    let mappings = mapping::parse(&text).unwrap_or_default();
    let mut placed = Placed::default();
    for mapping in mappings.iter().filter(|m| m.is_special() && m.path != b"[vsyscall]") {
        placed.all.push((mapping.start, mapping.end));
        if mapping.path == b"[vdso]" {
            placed.vdso = Some((mapping.start, mapping.end));
        }
    }
    Ok(placed)
}

/// Brings the kernel's pages to where the layout has them.
pub(super) fn apply(stub: &mut Stub, wanted: &[MappingImage], source: &[u8]) -> Result<(), Error> {
    let special = |mapping: &&MappingImage| {
        matches!(mapping.backing, Some(BackingImage::Special(kind))
            if kind != i32::from(SpecialImage::Vsyscall))
    };
    let vdso = |mapping: &&MappingImage| {
        mapping.backing == Some(BackingImage::Special(SpecialImage::Vdso.into()))
    };
    let first = wanted.iter().filter(special).map(|mapping| mapping.start).min();
    let text = wanted.iter().find(vdso).map(|mapping| (mapping.start, mapping.end));
    if stub.vdso_at == text.map(|(start, _)| start) {
        return Ok(());
    }
    unmap(stub)?;
    let (Some(first), Some((start, end))) = (first, text) else { return Ok(()) };
    let ours = ours()?;
    if is_same(source, &ours) {
        map(stub, first)?;
        stub.vdso_at = placed(stub.pid)?.vdso.map(|(start, _)| start);
        if stub.vdso_at != Some(start) {
            return Err(Error::invalid("place the vdso of", stub.object(), "it came elsewhere"));
        }
        return Ok(());
    }
    replace(stub, source, &ours, (start, end))?;
    stub.vdso_at = Some(start);
    Ok(())
}

fn unmap(stub: &Stub) -> Result<(), Error> {
    let mut batch = Batch::new();
    for (start, end) in placed(stub.pid)?.all {
        let args = args![start, end - start];
        batch.call("unmap the vdso of", &stub.object(), libc::SYS_munmap, args);
    }
    stub.run(&batch).map(drop)
}

fn map(stub: &Stub, at: u64) -> Result<(), Error> {
    let mut batch = Batch::new();
    let args = args![ARCH_MAP_VDSO_64, at];
    batch.call("map the vdso of", &stub.object(), libc::SYS_arch_prctl, args);
    stub.run(&batch).map(drop)
}

/// The source's code stays where it was and leads to ours, which comes to a free place.
fn replace(stub: &Stub, source: &[u8], ours: &[u8], (start, end): (u64, u64)) -> Result<(), Error> {
    let object = || stub.object();
    if source.is_empty() || source.len() as u64 > end - start {
        return Err(Error::invalid("place the vdso of", object(), "the layout lacks its code"));
    }
    // The kernel takes the address as a hint and finds the nearest room.
    map(stub, start - (1 << 20))?;
    let at = placed(stub.pid)?.vdso.map(|(start, _)| start);
    let at = at
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .on("find the vdso of", object)?;
    let patches = redirect(source, ours, at)
        .map_err(|why| Error::invalid("redirect the vdso of", object(), why))?;
    let mut code = source.to_vec();
    for patch in patches {
        let from = usize::try_from(patch.offset).unwrap_or(usize::MAX);
        let place = from.checked_add(patch.code.len()).and_then(|to| code.get_mut(from..to));
        let place = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        place.on("redirect the vdso of", object)?.copy_from_slice(&patch.code);
    }
    put(stub, &code, start, end)
}

fn put(stub: &Stub, code: &[u8], start: u64, end: u64) -> Result<(), Error> {
    let object = stub.object();
    let mut batch = Batch::new();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    let args = args![start, end - start, protection, flags, -1, 0];
    batch.call("map the old vdso of", &object, libc::SYS_mmap, args);
    stub.run(&batch)?;
    let path = format!("/proc/{}/mem", stub.pid);
    let memory =
        OpenOptions::new().write(true).open(path).on("open the memory of", || stub.object())?;
    memory.write_all_at(code, start).on("write the vdso of", || stub.object())
}
