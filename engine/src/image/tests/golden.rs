//! Images of every version that was released, in `tests/golden`: what is read of them never changes.
//!
//! A new version needs one: `MIGRATE_WRITE_GOLDEN=1 cargo test -p engine golden` makes it.

use super::*;
use crate::aspects::AspectImage;
use crate::descriptors::{DescriptorImage, DescriptorsImage, InFlightImage, ObjectImage};
use crate::image::manifest::Known;
use crate::image::{MemoryFields, ProcessImage, ThreadImage, TreeImage, VERSION};
use crate::kinds::DescriptionImage;
use crate::memory::file_identity::FileIdentity;
use crate::memory::mapping_image::{
    FileImage, ObjectImage as SharedObject, ObjectReference, OriginImage, SpecialImage,
};
use std::path::PathBuf;

const SHARED: u32 = 2;
const CHILD: u32 = 3;

fn golden(version: u32) -> PathBuf {
    let path = format!("../tests/golden/image-v{version}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn mapping(start: u64, pages: u64, backing: BackingImage) -> MappingImage {
    let end = start + pages * PAGE_BYTES;
    let backing = Some(backing);
    MappingImage { start, end, protection: 3, protection_max: 7, backing, ..Default::default() }
}

/// Something of everything: a process and its child, four sorts of memory, a pipe between them.
fn golden_tree() -> Tree {
    let identity = FileIdentity { size: 4711, build_id: vec![1, 2, 3], blake3: Vec::new() };
    let path = b"/usr/bin/counter".to_vec();
    let file = FileImage { path, identity, is_opened_for_writing: false };
    let object = ObjectReference { space: SHARED };
    let mappings = vec![
        mapping(AT, 64, BackingImage::Anonymous(AnonymousImage::default())),
        mapping(AT * 2, 4, BackingImage::File(file)),
        MappingImage { shared: true, ..mapping(AT * 3, 8, BackingImage::Object(object)) },
        mapping(AT * 4, 2, BackingImage::Special(SpecialImage::Vdso.into())),
    ];
    let root = ProcessLayout {
        pid: 4711,
        ppid: 1,
        pgid: 4711,
        sid: 4711,
        exit_signal: 17,
        space: SPACE,
        tids: vec![4711, 4712],
        mappings,
        descriptors_end: 5,
        ..ProcessLayout::default()
    };
    let child = ProcessLayout {
        pid: 4713,
        ppid: 4711,
        space: CHILD,
        tids: vec![4713],
        forked_from: SPACE,
        ..root.clone()
    };
    let origin = Some(OriginImage::MemfdName(b"ring".to_vec()));
    let shared = vec![SharedObject { space: SHARED, size: 8 * PAGE_BYTES, origin }];
    let layout = Layout {
        processes: vec![root, child],
        shared,
        vdso: vec![0x7f, b'E', b'L', b'F'],
        addresses: vec!["192.0.2.7/24".to_owned()],
        ..Layout::default()
    };
    let image = TreeImage {
        processes: vec![process(4711, &[4711, 4712]), process(4713, &[4713])],
        descriptors: Some(descriptors()),
        ..TreeImage::default()
    };
    Tree { layout: Some(layout), image: Some(image), copied: None }
}

fn process(pid: i32, tids: &[i32]) -> ProcessImage {
    let thread = |&tid: &i32| ThreadImage {
        tid,
        registers: (0..27).collect(),
        xstate: vec![9; 64],
        xstate_bytes: 2696,
        signal_mask: 0x4000,
        aspects: vec![aspect("name", b"\x0a\x07counter")],
        pending_signals: vec![vec![10; 128]],
        ..ThreadImage::default()
    };
    let memory = MemoryFields {
        bounds: (1..12).collect(),
        auxv: vec![6; 16],
        executable: "/usr/bin/counter".to_owned(),
    };
    ProcessImage {
        pid,
        memory: Some(memory),
        threads: tids.iter().map(thread).collect(),
        aspects: vec![aspect("umask", b"\x08\x12")],
        ..ProcessImage::default()
    }
}

fn aspect(name: &str, bytes: &[u8]) -> AspectImage {
    AspectImage { name: name.to_owned(), version: 1, bytes: bytes.to_vec() }
}

fn descriptors() -> DescriptorsImage {
    let object = |id, kind: &str, bytes: &[u8]| ObjectImage {
        id,
        kind: kind.to_owned(),
        version: 1,
        bytes: bytes.to_vec(),
    };
    let description = |id, object, flags| DescriptionImage {
        id,
        object,
        flags,
        owner_type: -1,
        ..DescriptionImage::default()
    };
    let number =
        |pid, fd, description| DescriptorImage { pid, fd, close_on_exec: fd == 4, description };
    DescriptorsImage {
        // A pipe of 64 KiB with "hi" in it, and an eventfd at 5.
        objects: vec![
            object(1, "pipe", b"\x0a\x08\x0a\x02hi\x18\x80\x80\x04"),
            object(2, "eventfd", b"\x08\x05"),
        ],
        descriptions: vec![description(1, 1, 0), description(2, 1, 1), description(3, 2, 2)],
        descriptors: vec![number(4711, 3, 1), number(4713, 4, 2)],
        in_flight: vec![InFlightImage { description: 3, carrier: 1 }],
    }
}

fn golden_manifest() -> Manifest {
    Manifest {
        dumped_at_ms: 1_795_369_223_021,
        host: b"\x32\x07\x0a\x05hosta".to_vec(),
        kinds: vec![Known { name: "pipe".to_owned(), version: 1 }],
        aspects: vec![Known { name: "umask".to_owned(), version: 1 }],
        ..Manifest::default()
    }
}

/// What was written into each space, later over earlier.
fn steps(parent: bool) -> Vec<(u32, u64, Option<Vec<u8>>)> {
    let text = |seed: u8| page(seed * 2);
    let noise = |seed: u8| page(seed * 2 + 1);
    let mut steps = vec![
        (SPACE, 0, Some([text(1), noise(1), text(2), noise(2)].concat())),
        (SPACE, 2, Some(noise(3))),
        (SPACE, 20, None),
        (SHARED, 5, Some(text(3))),
    ];
    if !parent {
        steps.push((SPACE, 0, Some(text(4))));
        steps.push((CHILD, 1, Some(noise(4))));
    }
    steps
}

fn at(space: u32, number: u64) -> u64 {
    let first = if space == SHARED { 0 } else { AT };
    first + number * PAGE_BYTES
}

fn write_golden(path: &Path, manner: &Manner, parent: bool) {
    let mut writer = Writer::create(path, manner).unwrap();
    let tree = golden_tree();
    let layout = tree.layout.as_ref().unwrap();
    // The child is forked when its parent has all of its pages.
    let root = Layout { processes: layout.processes[..1].to_vec(), ..layout.clone() };
    writer.shape(&root).unwrap();
    for (space, number, bytes) in steps(parent) {
        if space == CHILD {
            writer.shape(layout).unwrap();
        }
        match bytes {
            Some(bytes) => writer.data(space, at(space, number), &bytes).unwrap(),
            None => writer.zero(space, at(space, number), 3).unwrap(),
        }
    }
    writer.finish(&tree, golden_manifest()).unwrap();
}

/// Of a space, from the same steps and without any of the code that is tested.
fn expected(space: u32) -> Pages {
    let mut spaces: BTreeMap<u32, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
    for (space, number, bytes) in steps(false) {
        if space == CHILD {
            let parent = spaces[&SPACE].clone();
            spaces.insert(CHILD, parent);
        }
        let bytes = bytes.unwrap_or_else(|| vec![0; 3 * PAGE]);
        let pages = (number..).zip(bytes.chunks(PAGE));
        let pages = pages.map(|(number, bytes)| (at(space, number), bytes.to_vec()));
        spaces.entry(space).or_default().extend(pages);
    }
    Pages(spaces.remove(&space).unwrap_or_default())
}

/// An image and an increment of it, which find each other wherever they are.
fn make(path: &Path) {
    let there = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| there.path().join(name));
    write_golden(&first, &Manner { compress: true, ..Manner::default() }, true);
    let increment = Manner { parent: Some(first.clone()), ..Manner::default() };
    write_golden(&second, &increment, false);
    for one in [&first, &second] {
        let to = path.join(one.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(one).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn is_as_it_was(path: &Path) {
    let image = StoredImage::open(&path.join("second"), &Identities::default()).unwrap();
    image.store().verify().unwrap();
    assert_eq!(image.tree(), &golden_tree());
    for space in [SPACE, SHARED, CHILD] {
        let mut pages = Pages::default();
        image.store().read_all(space, &mut pages).unwrap();
        let expected = expected(space);
        assert_eq!(pages.0.keys().collect::<Vec<_>>(), expected.0.keys().collect::<Vec<_>>());
        assert!(pages == expected, "the pages of space {space} are others");
    }
    let (manifest, known) = (image.manifest(), golden_manifest());
    assert_eq!(manifest.dumped_at_ms, known.dumped_at_ms);
    assert_eq!((&manifest.kinds, &manifest.aspects), (&known.kinds, &known.aspects));
    assert_eq!(manifest.host, known.host);
    // It has less than its parent: only what changed.
    let parent = StoredImage::open(&path.join("first"), &Identities::default()).unwrap();
    assert!(image.store().size().stored_bytes <= 3 * PAGE_BYTES);
    assert!(parent.store().size().pages > 3);
}

#[test]
fn golden_images_of_every_version_are_read_as_they_were_written() {
    let newest = golden(VERSION);
    if std::env::var_os("MIGRATE_WRITE_GOLDEN").is_some() && !newest.exists() {
        make(&newest);
    }
    for version in 1..=VERSION {
        assert!(golden(version).exists(), "version {version} has no golden image");
        is_as_it_was(&golden(version));
    }
}

#[test]
fn what_is_written_today_is_read_as_the_golden_images_are() {
    let top = tempfile::tempdir().unwrap();
    make(top.path());
    is_as_it_was(top.path());
}
