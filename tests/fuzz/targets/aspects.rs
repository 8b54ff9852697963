//! The image of every aspect, up to the calls that would restore it.

#![no_main]

use engine::aspects::{ALL, Subject};
use engine::batch::Batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|image: (u8, &[u8])| {
    let (which, bytes) = image;
    let aspect = &ALL[usize::from(which) % ALL.len()];
    let subject = Subject { pid: 4711, tid: 4712, status: "" };
    let _ = (aspect.restore)(bytes, &subject, &mut Batch::new());
    let _ = (aspect.touched)(bytes);
});
