//! Files that go with an image, away from where they were and back.

use super::*;
use crate::image::copied::{Copied, CopiedFile, Copier, Named, named, put_in, too_much};
use crate::memory::mapping_image::FileImage;
use nix::sys::time::TimeSpec;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

const PLENTY: u64 = 1 << 30;

/// A tree of files, and an image of them.
struct World {
    top: tempfile::TempDir,
    image: PathBuf,
}

impl World {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let world = Self { image: top.path().join("image"), top };
        fs::create_dir_all(world.path("here/below")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// A file with a hole of a MiB in it, and an end in the middle of a page.
    fn holed(&self) -> PathBuf {
        let path = self.path("here/below/holed");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"begins", 0).unwrap();
        file.write_all_at(&page(3), 1 << 20).unwrap();
        file.write_all_at(b"ends", (1 << 20) + 3 * PAGE_BYTES).unwrap();
        file.set_len((1 << 20) + 3 * PAGE_BYTES + 100).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
        let past = TimeSpec::new(1_000_000_000, 42);
        nix::sys::stat::futimens(&file, &past, &past).unwrap();
        path
    }

    fn plain(&self, content: &str) -> PathBuf {
        let path = self.path("here/plain");
        fs::write(&path, content).unwrap();
        path
    }

    fn store(&self, paths: &[&Path]) -> StoredImage {
        self.store_as(&self.image, &Manner::default(), paths)
    }

    fn store_as(&self, image: &Path, manner: &Manner, paths: &[&Path]) -> StoredImage {
        let mut writer = Writer::create(image, manner).unwrap();
        let named: Named = paths.iter().map(|path| (path.to_path_buf(), false)).collect();
        let mut copier = Copier::new(PLENTY);
        writer.recognise_files(&copier.number(&named));
        copier.copy_ahead(&named, &mut writer).unwrap();
        let copied = copier.copy_the_rest(&named, &mut writer).unwrap();
        let tree = Tree { copied: Some(copied), ..tree() };
        writer.shape(tree.layout.as_ref().unwrap()).unwrap();
        writer.finish(&tree, Manifest::default()).unwrap();
        StoredImage::open(image, &Identities::default()).unwrap()
    }
}

fn facts(path: &Path) -> (Vec<u8>, [u64; 4], [i64; 4]) {
    let found = fs::metadata(path).unwrap();
    let numbers = [found.mode().into(), found.uid().into(), found.gid().into(), found.blocks()];
    let times = [found.mtime(), found.mtime_nsec(), found.atime(), found.atime_nsec()];
    (fs::read(path).unwrap(), numbers, times)
}

#[test]
fn a_missing_file_comes_back_with_its_holes_owner_mode_and_times() {
    let world = World::new();
    let path = world.holed();
    fs::set_permissions(world.path("here/below"), Permissions::from_mode(0o711)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
    }
    let before = facts(&path);
    let past = TimeSpec::new(1_000_000_000, 42);
    // To look has changed it.
    nix::sys::stat::futimens(File::open(&path).unwrap(), &past, &past).unwrap();
    let image = world.store(&[&path]);
    image.verify().unwrap();
    assert_eq!(image.store().size().pages, 0, "it is no memory");
    fs::remove_dir_all(world.path("here")).unwrap();
    let (put_in, refusals) = put_in(&image).unwrap();
    assert_eq!((put_in.files(), refusals.len()), (1, 0));
    put_in.keep();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(
        (found.mtime(), found.mtime_nsec(), found.atime()),
        (1_000_000_000, 42, 1_000_000_000)
    );
    let after = facts(&path);
    assert_eq!(before.0, after.0);
    assert_eq!(before.1[..3], after.1[..3]);
    assert!(after.1[3] <= before.1[3], "{} blocks, not {}", after.1[3], before.1[3]);
    let mode = fs::metadata(world.path("here/below")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o711);
}

#[test]
fn what_was_put_in_is_taken_back_with_its_directories_and_nothing_else() {
    let world = World::new();
    let (holed, plain) = (world.holed(), world.plain("mine"));
    let image = world.store(&[&holed, &plain]);
    fs::remove_dir_all(world.path("here/below")).unwrap();
    let (files, _) = put_in(&image).unwrap();
    assert!(holed.exists() && files.files() == 1);
    drop(files);
    assert!(!world.path("here/below").exists());
    assert_eq!(fs::read_to_string(&plain).unwrap(), "mine");
    // Somebody else's by then.
    let (files, _) = put_in(&image).unwrap();
    fs::rename(world.plain("another"), &holed).unwrap();
    drop(files);
    assert_eq!(fs::read_to_string(&holed).unwrap(), "another");
}

#[test]
fn a_file_that_is_here_is_left_and_one_that_differs_is_refused_by_name() {
    let world = World::new();
    let (holed, plain) = (world.holed(), world.plain("mine"));
    let image = world.store(&[&holed, &plain]);
    let refused = |image| {
        let (files, refusals) = put_in(image).unwrap();
        assert_eq!(files.files(), 0);
        refusals.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let inode = fs::metadata(&holed).unwrap().ino();
    assert_eq!(refused(&image), Vec::<String>::new());
    assert_eq!(fs::metadata(&holed).unwrap().ino(), inode);
    world.plain("mime");
    // In what is a hole in the image.
    File::options().write(true).open(&holed).unwrap().write_all_at(b"x", 1 << 19).unwrap();
    let said = refused(&image);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("holed") && said[1].contains("plain"), "{said:?}");
    fs::remove_file(&plain).unwrap();
    fs::create_dir(&plain).unwrap();
    assert!(refused(&image)[1].contains("no regular file"));
}

#[test]
fn an_image_that_is_damaged_or_cut_off_puts_nothing_in() {
    let world = World::new();
    let (holed, plain) = (world.holed(), world.plain("mine"));
    let pages = world.store(&[&holed, &plain]).path().join("pages");
    fs::remove_dir_all(world.path("here")).unwrap();
    let whole = fs::read(&pages).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&pages, &flipped).unwrap();
    let image = StoredImage::open(&world.image, &Identities::default()).unwrap();
    let error = put_in(&image).unwrap_err();
    assert!(error.source.to_string().contains("changed on the disk"), "{error:?}");
    image.verify().unwrap_err();
    assert!(!world.path("here").exists());
    fs::write(&pages, &whole[..whole.len() - 1]).unwrap();
    StoredImage::open(&world.image, &Identities::default()).unwrap_err();
}

#[test]
fn what_changes_after_it_was_copied_is_copied_again() {
    let world = World::new();
    let (holed, plain) = (world.holed(), world.plain("before"));
    let mut writer = Writer::create(&world.image, &Manner::default()).unwrap();
    let named = Named::from([(holed.clone(), false), (plain.clone(), false)]);
    let mut copier = Copier::new(PLENTY);
    copier.copy_ahead(&named, &mut writer).unwrap();
    world.plain("after!");
    fs::remove_file(&holed).unwrap();
    let named = Named::from([(plain.clone(), false)]);
    let copied = copier.copy_the_rest(&named, &mut writer).unwrap();
    writer.finish(&Tree { copied: Some(copied), ..tree() }, Manifest::default()).unwrap();
    let image = StoredImage::open(&world.image, &Identities::default()).unwrap();
    assert_eq!(image.tree().copied.as_ref().unwrap().files.len(), 1);
    assert_eq!(image.store().spaces().count(), 1, "of the other nothing is left");
    fs::remove_file(&plain).unwrap();
    put_in(&image).unwrap().0.keep();
    assert_eq!(fs::read_to_string(&plain).unwrap(), "after!");
}

#[test]
fn an_increment_has_only_the_files_that_have_changed() {
    let world = World::new();
    let (holed, plain) = (world.holed(), world.plain("before"));
    world.store(&[&holed, &plain]);
    world.plain("after");
    let on_first = Manner { parent: Some(world.image.clone()), ..Manner::default() };
    let second = world.path("second");
    let image = world.store_as(&second, &on_first, &[&holed, &plain]);
    assert_eq!(image.store().size().stored_bytes, PAGE_BYTES);
    let comes_back = |image| {
        fs::remove_dir_all(world.path("here")).unwrap();
        put_in(image).unwrap().0.keep();
        assert_eq!(fs::read_to_string(&plain).unwrap(), "after");
        assert_eq!(fs::read(&holed).unwrap()[..6], *b"begins");
    };
    comes_back(&image);
    // Both in one.
    let merged = world.path("merged");
    let mut writer = Writer::create(&merged, &Manner::default()).unwrap();
    let store = image.store();
    store.spaces().try_for_each(|space| store.read_all(space, &mut writer)).unwrap();
    writer.finish(image.tree(), image.manifest().clone()).unwrap();
    fs::remove_dir_all(&world.image).unwrap();
    comes_back(&StoredImage::open(&merged, &Identities::default()).unwrap());
}

#[test]
fn a_hostile_list_of_files_opens_no_image() {
    let world = World::new();
    let path = world.plain("mine");
    let mut writer = Writer::create(&world.image, &Manner::default()).unwrap();
    let named = Named::from([(path, false)]);
    let copied = Copier::new(PLENTY).copy_the_rest(&named, &mut writer).unwrap();
    writer.finish(&Tree { copied: Some(copied.clone()), ..tree() }, Manifest::default()).unwrap();
    let image = StoredImage::open(&world.image, &Identities::default()).unwrap();
    let file = &copied.files[0];
    let check = |files| Copied { files, ..copied.clone() }.check(image.store());
    check(vec![file.clone()]).unwrap();
    let bad = [
        CopiedFile { path: b"/tmp/../etc/passwd".to_vec(), ..file.clone() },
        CopiedFile { path: b"relative".to_vec(), ..file.clone() },
        CopiedFile { path: b"/".to_vec(), ..file.clone() },
        CopiedFile { path: b"/tmp/".to_vec(), ..file.clone() },
        CopiedFile { space: SPACE, ..file.clone() },
        CopiedFile { size: 0, ..file.clone() },
        CopiedFile { size: u64::MAX, ..file.clone() },
    ];
    for bad in bad {
        check(vec![bad.clone()]).expect_err(&format!("{bad:?}"));
    }
    check(vec![file.clone(), file.clone()]).unwrap_err();
}

#[test]
fn what_is_mapped_and_executed_is_named_and_what_the_kernel_makes_up_is_not() {
    let world = World::new();
    let mut layout = tree().layout.unwrap();
    for (path, writes) in [(world.plain("mapped"), true), ("/proc/self/maps".into(), false)] {
        let file = FileImage {
            path: path.to_str().unwrap().as_bytes().to_vec(),
            is_opened_for_writing: writes,
            ..FileImage::default()
        };
        let backing = Some(BackingImage::File(file));
        layout.processes[0].mappings.push(MappingImage { backing, ..MappingImage::default() });
    }
    let executable = fs::canonicalize("/bin/sh").unwrap();
    let programs = [executable.to_str().unwrap().to_owned(), "/nonexistent".to_owned()];
    let found = named(&layout, None, programs.into_iter()).unwrap();
    let expected = Named::from([(executable, false), (world.path("here/plain"), true)]);
    assert_eq!(found, expected);
}

#[test]
fn more_than_is_admitted_is_refused_with_the_largest_and_a_copy_of_it_fails() {
    let world = World::new();
    let path = world.path("here/large");
    fs::write(&path, vec![1; 3 << 20]).unwrap();
    let named = Named::from([(path, false), (world.plain("small"), false)]);
    assert_eq!(too_much(&named, 4 << 20), None);
    let refusal = too_much(&named, 2 << 20).unwrap().to_string();
    assert!(refusal.contains("here/large") && refusal.contains("--copy-files-max"), "{refusal}");
    let mut writer = Writer::create(&world.image, &Manner::default()).unwrap();
    let error = Copier::new(2 << 20).copy_ahead(&named, &mut writer).unwrap_err();
    assert!(error.source.to_string().contains("--copy-files-max"), "{error:?}");
}
