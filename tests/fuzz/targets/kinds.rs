//! The image of every kind of object, through its check, its description and its part of the batch.

#![no_main]

use arbitrary::Arbitrary;
use engine::batch::Batch;
use engine::kinds::{ALL, DescriptionImage, Ground, Owner};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Object<'a> {
    kind: u8,
    descriptions: Vec<(u32, i32, u64)>,
    bytes: &'a [u8],
}

fuzz_target!(|object: Object<'_>| {
    let kind = &ALL[usize::from(object.kind) % ALL.len()];
    let descriptions: Vec<DescriptionImage> = object
        .descriptions
        .iter()
        .take(8)
        .zip(0..)
        .map(|((role, flags, position), id)| DescriptionImage {
            id,
            role: *role,
            flags: *flags,
            position: *position,
            ..DescriptionImage::default()
        })
        .collect();
    let owner = Owner { pid: 1, fd: 3 };
    let _ = (kind.check)(object.bytes, &descriptions, Ground { owner, coming: &[] });
    let _ = (kind.cut_off)(object.bytes);
    for description in &descriptions {
        let _ = (kind.describe)(object.bytes, description);
        let _ = (kind.connect)(object.bytes, description, owner, &mut Batch::new());
    }
});
