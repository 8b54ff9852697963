//! Images that are encrypted with a key made here.

use super::*;
use crate::image::Recipients;
use crate::memory::Run;
use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use std::path::PathBuf;
use std::thread;

/// A key pair, the secret part of it in a file.
struct Key {
    recipient: String,
    _file: tempfile::NamedTempFile,
    identities: Identities,
    path: PathBuf,
}

fn new_key() -> Key {
    let identity = Identity::generate();
    let file = tempfile::NamedTempFile::new().unwrap();
    let secret = identity.to_string();
    fs::write(file.path(), format!("# mine\n{}\n", secret.expose_secret())).unwrap();
    let path = file.path().to_owned();
    let identities = Identities::read(std::slice::from_ref(&path)).unwrap();
    Key { recipient: identity.to_public().to_string(), _file: file, identities, path }
}

fn sealed_for(keys: &[&Key]) -> Manner {
    let wanted: Vec<String> = keys.iter().map(|key| key.recipient.clone()).collect();
    let recipients = Recipients::read(&wanted).unwrap();
    Manner { recipients, ..Manner::default() }
}

fn cause(opened: Result<StoredImage, crate::Error>) -> String {
    let error = opened.expect_err("it should not open");
    format!("{error}: {}", error.source)
}

#[test]
fn every_page_of_a_sealed_image_comes_back_for_each_recipient() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let (one, other) = (new_key(), new_key());
    let expected = write(&path, &Manner { compress: true, ..sealed_for(&[&one, &other]) }, 7);
    for key in [&one, &other] {
        let image = StoredImage::open(&path, &key.identities).unwrap();
        assert!(image.is_sealed());
        assert_eq!(image.tree(), &tree());
        assert_eq!(pages_of(&image).unwrap(), expected);
        image.verify().unwrap();
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{}", path.display());
        // The digits that page 4 is full of, and the magic of our own files.
        let shows = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
        assert!(!shows(b"44444444") && !shows(b"migrate\0"), "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["index.age", "manifest.age", "pages.age", "tree.age"]);
}

#[test]
fn any_page_of_a_sealed_image_is_read_without_the_others_and_by_several_at_once() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let key = new_key();
    let mut writer = Writer::create(&path, &sealed_for(&[&key])).unwrap();
    writer.shape(tree().layout.as_ref().unwrap()).unwrap();
    // Blocks that end somewhere in the chunks of age.
    for number in (0..63).step_by(3) {
        let bytes: Vec<u8> = (0..3).flat_map(|n| page(number + n)).collect();
        writer.data(SPACE, AT + u64::from(number) * PAGE_BYTES, &bytes).unwrap();
    }
    writer.finish(&tree(), Manifest::default()).unwrap();
    let image = StoredImage::open(&path, &key.identities).unwrap();
    let one = |number: u8| {
        let mut pages = Pages::default();
        let address = AT + u64::from(number) * PAGE_BYTES;
        image.store().read(SPACE, Run { address, pages: 1 }, &mut pages).unwrap();
        assert_eq!(pages.0, BTreeMap::from([(address, page(number))]), "page {number}");
    };
    thread::scope(|scope| {
        scope.spawn(|| (0..63).rev().for_each(one));
        scope.spawn(|| (0..252_u8).step_by(4).for_each(|number| one(number % 63)));
    });
}

#[test]
fn nobody_opens_it_without_the_identity() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let key = new_key();
    write(&path, &sealed_for(&[&key]), 7);
    let said = cause(StoredImage::open(&path, &Identities::default()));
    assert!(said.contains("manifest.age") && said.contains("--identity"), "{said}");
    let said = cause(StoredImage::open(&path, &new_key().identities));
    assert!(said.contains("manifest.age") && said.contains("encrypted to others"), "{said}");
}

#[test]
fn a_sealed_file_that_was_changed_is_named() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let key = new_key();
    write(&path, &sealed_for(&[&key]), 7);
    for name in ["manifest.age", "tree.age", "index.age", "pages.age"] {
        let file = path.join(name);
        let bytes = fs::read(&file).unwrap();
        let opened = || StoredImage::open(&path, &key.identities);
        let refused = |what: &str| {
            let image = opened().and_then(|image| pages_of(&image));
            let error = image.expect_err(what);
            assert!(error.to_string().contains(name), "{what}: {error}: {}", error.source);
        };
        // All of the header, and then some.
        let header = bytes.len().min(250);
        for at in (0..header).chain((header..bytes.len()).step_by(997)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, &flipped).unwrap();
            refused(&format!("byte {at}"));
        }
        for length in [0, 1, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&file, &bytes[..length]).unwrap();
            refused(&format!("cut off after {length}"));
        }
        fs::remove_file(&file).unwrap();
        opened().expect_err("it is gone");
        fs::write(&file, &bytes).unwrap();
        opened().unwrap();
    }
}

#[test]
fn an_increment_of_a_sealed_image_is_sealed_and_opened_with_the_same_identities() {
    let top = tempfile::tempdir().unwrap();
    let [first, second, merged] = ["1", "2", "merged"].map(|name| top.path().join(name));
    let key = new_key();
    write(&first, &sealed_for(&[&key]), 7);
    let open = Manner {
        parent: Some(first.clone()),
        identities: key.identities.clone(),
        ..Manner::default()
    };
    let error = Writer::create(&second, &open).expect_err("it would not be sealed");
    assert!(error.source.to_string().contains("--encrypt-to"), "{error:?}");
    assert!(!second.exists());
    let manner = Manner { parent: Some(first.clone()), ..sealed_for(&[&key]) };
    Writer::create(&second, &manner).expect_err("its parent cannot be read");
    let manner = Manner { identities: key.identities.clone(), ..manner };
    let expected = write(&second, &manner, 9);
    let image = StoredImage::open(&second, &key.identities).unwrap();
    assert_eq!(image.store().size().stored_bytes, PAGE_BYTES);
    assert_eq!(pages_of(&image).unwrap(), expected);
    StoredImage::open(&second, &Identities::default()).unwrap_err();
    // Without the parent, for somebody else.
    let other = new_key();
    let mut writer = Writer::create(&merged, &sealed_for(&[&other])).unwrap();
    image.store().read_all(SPACE, &mut writer).unwrap();
    let manifest = Manifest { parent: None, ..image.manifest().clone() };
    writer.finish(image.tree(), manifest).unwrap();
    let merged = StoredImage::open(&merged, &other.identities).unwrap();
    assert_eq!(pages_of(&merged).unwrap(), expected);
}

#[test]
fn what_is_not_finished_leaves_nothing_sealed_behind() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let key = new_key();
    let mut writer = Writer::create(&path, &sealed_for(&[&key])).unwrap();
    writer.data(SPACE, AT, &page(1)).unwrap();
    let said = cause(StoredImage::open(&path, &key.identities));
    assert!(said.contains("no image"), "{said}");
    drop(writer);
    assert!(!path.exists());
}

#[test]
fn recipients_come_one_a_line_and_a_file_of_secrets_is_not_quoted() {
    let key = new_key();
    let list = tempfile::NamedTempFile::new().unwrap();
    let path = || vec![list.path().display().to_string()];
    fs::write(list.path(), format!("# ours\n\n{}\n", key.recipient)).unwrap();
    assert!(!Recipients::read(&path()).unwrap().is_empty());
    fs::write(list.path(), "# nobody\n").unwrap();
    Recipients::read(&path()).unwrap_err();
    let secrets = vec![key.path.display().to_string()];
    let error = Recipients::read(&secrets).unwrap_err();
    let said = format!("{error}: {}", error.source);
    assert!(said.contains("line 2") && !said.contains("AGE-SECRET"), "{said}");
    let error = Identities::read(&[list.path().to_owned()]).unwrap_err();
    assert!(error.to_string().contains("identities"), "{error}");
}
