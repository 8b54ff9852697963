//! What the kernel keeps about an address space besides its mappings: PR_SET_MM_MAP of prctl(2).

use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::image::MemoryFields;
use crate::paths;
use crate::stage::{Stub, fetch};
use std::os::fd::AsFd as _;

const BOUNDS: usize = 11;
/// `struct prctl_mm_map`: eleven bounds, auxv pointer, auxv size, descriptor of the executable.
const AUXV_OFFSET: usize = BOUNDS * 8;

pub(super) fn restore(stub: &Stub, fields: &MemoryFields) -> Result<(), Error> {
    let object = stub.object();
    if fields.bounds.len() != BOUNDS || fields.auxv.len() > 4096 {
        let part = Object::Image { part: format!("memory fields of process {}", stub.pid) };
        return Err(Error::invalid("read the", part, "their number is wrong"));
    }
    let path = || Object::File { path: fields.executable.clone() };
    let opened = paths::open_regular(fields.executable.as_bytes(), libc::O_RDONLY);
    let opened = opened.on("open the executable", path)?;
    let mut batch = Batch::new();
    let fetched = fetch(opened.as_fd(), &object, &mut batch);
    let executable = u32::try_from(stub.run(&batch)?.raw(fetched)).unwrap_or(u32::MAX);

    let mut batch = Batch::new();
    let auxv = batch.bytes(&fields.auxv);
    let length = u32::try_from(fields.auxv.len()).expect("at most a page");
    let mut map: Vec<u8> = fields.bounds.iter().flat_map(|bound| bound.to_ne_bytes()).collect();
    map.extend_from_slice(&[0; 8]);
    map.extend_from_slice(&length.to_ne_bytes());
    map.extend_from_slice(&executable.to_ne_bytes());
    let size = map.len();
    let map = batch.bytes(&map);
    batch.pointer(map, AUXV_OFFSET, auxv);
    batch.call(
        "set the memory bounds of",
        &object,
        libc::SYS_prctl,
        args![libc::PR_SET_MM, libc::PR_SET_MM_MAP, map, size, 0],
    );
    batch.call("close the executable of", &object, libc::SYS_close, args![executable]);
    stub.run(&batch).map(drop)
}
