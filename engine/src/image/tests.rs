//! A small image, in whole and in parts.

use super::manifest::{Manifest, Tree};
use super::{Identities, Layout, Manner, PAGE, ProcessLayout, StoredImage, Writer};
use crate::memory::mapping_image::{AnonymousImage, BackingImage, MappingImage};
use crate::memory::{PAGE_BYTES, PageSink};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

mod copied;
mod documented;
mod golden;
mod sealed;

const SPACE: u32 = 1;
const AT: u64 = 0x10_0000;

/// A process with 64 pages of anonymous memory.
fn tree() -> Tree {
    let mapping = MappingImage {
        start: AT,
        end: AT + 64 * PAGE_BYTES,
        protection: 3,
        protection_max: 3,
        backing: Some(BackingImage::Anonymous(AnonymousImage::default())),
        ..MappingImage::default()
    };
    let process = ProcessLayout {
        pid: 4711,
        ppid: 1,
        space: SPACE,
        tids: vec![4711],
        mappings: vec![mapping],
        ..ProcessLayout::default()
    };
    let layout = Layout { processes: vec![process], ..Layout::default() };
    Tree { layout: Some(layout), image: Some(super::TreeImage::default()), copied: None }
}

/// Text, which can be compressed, and noise, which cannot.
fn page(seed: u8) -> Vec<u8> {
    match seed % 2 {
        0 => seed.to_string().into_bytes().into_iter().cycle().take(PAGE).collect(),
        _ => {
            let mut noise = vec![0; PAGE];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
            noise
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Pages(BTreeMap<u64, Vec<u8>>);

impl PageSink for Pages {
    fn data(&mut self, _: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        for (page, bytes) in bytes.chunks(PAGE).enumerate() {
            self.0.insert(address + (page * PAGE) as u64, bytes.to_vec());
        }
        Ok(())
    }

    fn zero(&mut self, _: u32, address: u64, pages: u64) -> io::Result<()> {
        (0..pages).for_each(|page| {
            self.0.insert(address + page * PAGE_BYTES, vec![0; PAGE]);
        });
        Ok(())
    }

    fn dropped(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn pages_of(image: &StoredImage) -> Result<Pages, crate::Error> {
    let mut pages = Pages::default();
    image.store().read_all(SPACE, &mut pages)?;
    Ok(pages)
}

/// Pages 0 to 3, 1 written twice, 2 dropped, and zeros from 8 on.
fn write(path: &Path, manner: &Manner, changed: u8) -> Pages {
    let mut writer = Writer::create(path, manner).unwrap();
    let tree = tree();
    writer.shape(tree.layout.as_ref().unwrap()).unwrap();
    let all: Vec<u8> = [page(1), page(2), page(3), page(4)].concat();
    writer.data(SPACE, AT, &all).unwrap();
    writer.data(SPACE, AT + PAGE_BYTES, &page(changed)).unwrap();
    writer.dropped(SPACE, AT + 2 * PAGE_BYTES, 1).unwrap();
    writer.zero(SPACE, AT + 8 * PAGE_BYTES, 3).unwrap();
    writer.finish(&tree, Manifest::default()).unwrap();
    let mut expected = Pages::default();
    for (number, seed) in [(0, 1), (1, changed), (3, 4)] {
        expected.data(SPACE, AT + number * PAGE_BYTES, &page(seed)).unwrap();
    }
    expected.zero(SPACE, AT + 8 * PAGE_BYTES, 3).unwrap();
    expected
}

#[test]
fn every_page_comes_back_as_it_was_last() {
    for compress in [false, true] {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("image");
        let expected = write(&path, &Manner { compress, ..Manner::default() }, 7);
        let image = StoredImage::open(&path, &Identities::default()).unwrap();
        assert_eq!(image.tree(), &tree());
        assert_eq!(pages_of(&image).unwrap(), expected);
        assert_eq!(image.store().data(SPACE).pages(), 3);
        image.store().verify().unwrap();
    }
}

#[test]
fn an_increment_has_only_what_changed_and_needs_its_parent() {
    let top = tempfile::tempdir().unwrap();
    let [first, second, merged] = ["1", "2", "merged"].map(|name| top.path().join(name));
    write(&first, &Manner::default(), 7);
    let on_first = Manner { parent: Some(first.clone()), ..Manner::default() };
    let expected = write(&second, &on_first, 9);
    let image = StoredImage::open(&second, &Identities::default()).unwrap();
    assert_eq!(pages_of(&image).unwrap(), expected);
    assert_eq!(image.store().data(SPACE).pages(), 3);
    // Page 1, which it saw as 2 before it was 9.
    assert_eq!(image.store().size().stored_bytes, PAGE_BYTES);
    // Both carried elsewhere.
    let there = tempfile::tempdir().unwrap();
    fs::rename(&first, there.path().join("1")).unwrap();
    let error = StoredImage::open(&second, &Identities::default()).unwrap_err();
    assert!(error.source.to_string().contains("gone"), "{error:?}");
    fs::rename(&second, there.path().join("2")).unwrap();
    let carried = StoredImage::open(&there.path().join("2"), &Identities::default()).unwrap();
    assert_eq!(pages_of(&carried).unwrap(), expected);
    // Without the parent.
    let mut writer = Writer::create(&merged, &Manner::default()).unwrap();
    carried.store().read_all(SPACE, &mut writer).unwrap();
    writer.finish(carried.tree(), carried.manifest().clone()).unwrap();
    fs::remove_dir_all(there.path().join("1")).unwrap();
    assert_eq!(
        pages_of(&StoredImage::open(&merged, &Identities::default()).unwrap()).unwrap(),
        expected
    );
}

#[test]
fn another_image_in_the_place_of_the_parent_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let [first, second] = ["1", "2"].map(|name| top.path().join(name));
    write(&first, &Manner::default(), 7);
    write(&second, &Manner { parent: Some(first.clone()), ..Manner::default() }, 9);
    fs::remove_dir_all(&first).unwrap();
    write(&first, &Manner::default(), 5);
    let error = StoredImage::open(&second, &Identities::default()).unwrap_err();
    assert!(error.source.to_string().contains("another image"), "{error:?}");
}

#[test]
fn a_fork_begins_with_what_its_parent_had_then() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let mut writer = Writer::create(&path, &Manner::default()).unwrap();
    let mut tree = tree();
    let layout = tree.layout.as_mut().unwrap();
    writer.shape(layout).unwrap();
    writer.data(SPACE, AT, &page(1)).unwrap();
    let parent = layout.processes[0].clone();
    layout.processes.push(ProcessLayout { pid: 4712, space: 2, forked_from: SPACE, ..parent });
    writer.shape(layout).unwrap();
    writer.data(SPACE, AT, &page(3)).unwrap();
    writer.finish(&tree, Manifest::default()).unwrap();
    let image = StoredImage::open(&path, &Identities::default()).unwrap();
    let mut child = Pages::default();
    image.store().read_all(2, &mut child).unwrap();
    assert_eq!(child.0[&AT], page(1));
    assert_eq!(pages_of(&image).unwrap().0[&AT], page(3));
}

#[test]
fn a_page_in_no_mapping_makes_no_image() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let mut writer = Writer::create(&path, &Manner::default()).unwrap();
    writer.data(SPACE, AT + 64 * PAGE_BYTES, &page(1)).unwrap();
    let error = writer.finish(&tree(), Manifest::default()).unwrap_err();
    assert!(error.to_string().contains("process 4711"), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn what_is_not_finished_is_no_image() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let mut writer = Writer::create(&path, &Manner::default()).unwrap();
    writer.data(SPACE, AT, &page(1)).unwrap();
    let error = StoredImage::open(&path, &Identities::default()).unwrap_err();
    assert!(error.source.to_string().contains("no image"), "{error:?}");
    drop(writer);
    assert!(!path.exists());
}

/// What an image restores, or why it does not.
fn restored(path: &Path) -> Result<(Tree, Pages), crate::Error> {
    let image = StoredImage::open(path, &Identities::default())?;
    let pages = pages_of(&image)?;
    Ok((image.tree().clone(), pages))
}

#[test]
fn no_flipped_byte_and_no_cut_restores_anything_else() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let whole = write(&path, &Manner { compress: true, ..Manner::default() }, 7);
    let expected = (tree(), whole);
    assert_eq!(restored(&path).unwrap(), expected);
    for name in ["manifest", "tree", "index", "pages"] {
        let file = path.join(name);
        let bytes = fs::read(&file).unwrap();
        let mut found = 0;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, &flipped).unwrap();
            // A byte of a block that nothing shows any more may be anything.
            match restored(&path) {
                Ok(other) => assert_eq!(other, expected, "byte {at} of {name}"),
                Err(_) => found += 1,
            }
        }
        assert!(name == "pages" || found == bytes.len(), "{name}: {found} of {}", bytes.len());
        assert!(found > bytes.len() / 3, "{name}: {found} of {}", bytes.len());
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&file, &bytes[..length]).unwrap();
            restored(&path).expect_err("it was cut off");
        }
        fs::remove_file(&file).unwrap();
        let error = restored(&path).expect_err("it is gone");
        assert!(error.to_string().contains(&path.display().to_string()), "{error:?}");
        fs::write(&file, &bytes).unwrap();
    }
    assert_eq!(restored(&path).unwrap(), expected);
}
