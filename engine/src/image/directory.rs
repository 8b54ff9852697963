//! The directory of an image: four files, of which the last one makes it whole.
//!
//! In a sealed one all of them are files of age, and have names that say so.
//!
//! `pages` and what else there is are written first and synced; then `manifest` gets its name. A
//! directory in which somebody was interrupted has no manifest: it holds no image, and the next
//! one who is to write there clears it away. A lock on the directory tells who still writes.

use super::file::{Input, Output};
use super::framed::{self, Digest};
use super::keys::{Identities, Recipients};
use crate::error::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub(super) const MANIFEST: &str = "manifest";
pub(super) const TREE: &str = "tree";
pub(super) const INDEX: &str = "index";
pub(super) const PAGES: &str = "pages";
/// All of them, in the order in which they are written.
pub const FILES: [&str; 4] = [PAGES, INDEX, TREE, MANIFEST];
/// At the end of each name, where the files are sealed.
const SEALED: &str = ".age";
const UNFINISHED: &str = ".unfinished";

/// What may be left where somebody was interrupted.
const LEFT: [&str; 8] = [
    PAGES,
    TREE,
    INDEX,
    "manifest.unfinished",
    "pages.age",
    "tree.age",
    "index.age",
    "manifest.age.unfinished",
];

/// The directory of an image that is whole.
#[derive(Debug)]
pub(super) struct Finished<'a> {
    path: PathBuf,
    /// Who may open it, if it is sealed.
    seal: Option<&'a Identities>,
}

impl<'a> Finished<'a> {
    pub(super) fn find(path: &Path, identities: &'a Identities) -> Result<Self, Error> {
        let object = || Object::File { path: path.display().to_string() };
        let path = path.canonicalize().on("find the image in", object)?;
        let seal = match (path.join(MANIFEST).exists(), path.join(sealed(MANIFEST)).exists()) {
            (true, _) => None,
            (false, true) => Some(identities),
            (false, false) => {
                let why = "it holds no image, or one that was not finished";
                return Err(Error::invalid("read", object(), why));
            }
        };
        Ok(Self { path, seal })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    pub(super) fn open(&self, name: &str) -> Result<Input, Error> {
        match self.seal {
            None => Input::plain(self.path.join(name)),
            Some(identities) => Input::sealed(self.path.join(sealed(name)), identities),
        }
    }
}

/// Whether an image is there, whole.
pub(super) fn is_image(path: &Path) -> bool {
    path.join(MANIFEST).exists() || path.join(sealed(MANIFEST)).exists()
}

fn sealed(name: &str) -> String {
    format!("{name}{SEALED}")
}

/// A directory that is being written. Dropping it removes everything again.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    /// Whether it is ours to remove.
    is_new: bool,
    is_finished: bool,
    recipients: Recipients,
    _lock: Flock<File>,
}

impl Unfinished {
    /// Makes the directory, or takes an empty one. Only its owner may look into a new one: it will
    /// hold whatever secrets the tree has.
    pub(super) fn claim(path: &Path, recipients: &Recipients) -> Result<Self, Error> {
        let object = || Object::File { path: path.display().to_string() };
        let is_new = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).on("make", object),
        };
        let directory = File::open(path).on("open", object)?;
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, error)| match error {
            nix::Error::EWOULDBLOCK => {
                Error::invalid("write into", object(), "another one is writing an image there")
            }
            error => Error::new("lock", object(), error.into()),
        })?;
        let path = path.canonicalize().on("find", object)?;
        // Before it is ours to be removed again.
        clear(&path)?;
        Ok(Self { path, is_new, is_finished: false, recipients: recipients.clone(), _lock: lock })
    }

    /// Where the file of that name is.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        match self.recipients.is_empty() {
            true => self.path.join(name),
            false => self.path.join(sealed(name)),
        }
    }

    /// A new file in it.
    pub(super) fn create(&self, name: &str) -> Result<Output, Error> {
        Output::create(&self.path_of(name), &self.recipients)
    }

    /// A new file that is one message, on the disk when this returns.
    pub(super) fn write(&self, name: &str, message: &[u8]) -> Result<Digest, Error> {
        framed::write(&self.path_of(name), &self.recipients, name, message)
    }

    /// Makes it an image: from here on it stays. Everything else has to be on the disk already.
    pub(super) fn finish(mut self, manifest: &[u8]) -> Result<(), Error> {
        let whole = self.path_of(MANIFEST);
        let mut unfinished = whole.clone().into_os_string();
        unfinished.push(UNFINISHED);
        framed::write(Path::new(&unfinished), &self.recipients, MANIFEST, manifest)?;
        sync_directory(&self.path).on("write", || self.object())?;
        fs::rename(&unfinished, &whole).on("finish", || self.object())?;
        sync_directory(&self.path).on("finish", || self.object())?;
        self.path.parent().map_or(Ok(()), sync_directory).on("finish", || self.object())?;
        self.is_finished = true;
        Ok(())
    }

    fn object(&self) -> Object {
        Object::File { path: self.path.display().to_string() }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // The manifest first: what cannot be removed then is not taken for an image, and the next one
        // removes it.
        let _ = fs::remove_file(self.path_of(MANIFEST));
        for name in LEFT {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Removes what an interrupted one has left, and refuses anything else.
fn clear(directory: &Path) -> Result<(), Error> {
    let object = || Object::File { path: directory.display().to_string() };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).on("list", object)? {
        names.push(entry.on("list", object)?.file_name());
    }
    if is_image(directory) {
        return Err(Error::invalid("write into", object(), "it holds an image already"));
    }
    let is_foreign = |name: &&OsString| LEFT.iter().all(|left| name != left);
    if let Some(name) = names.iter().find(is_foreign) {
        let why = format!("it is not empty: it has {}", name.display());
        return Err(Error::invalid("write into", object(), why));
    }
    names.iter().try_for_each(|name| {
        let path = directory.join(name);
        fs::remove_file(&path).on("remove", || Object::File { path: path.display().to_string() })
    })
}

/// What was named, renamed or removed in it is so after a power cut as well.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn claim(path: &Path) -> Result<Unfinished, Error> {
        Unfinished::claim(path, &Recipients::default())
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("image");
        let unfinished = claim(&path).unwrap();
        unfinished.create(PAGES).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(claim(&path).unwrap_err().source.to_string().contains("another"));
        drop(unfinished);
        assert!(!path.exists());
    }

    #[test]
    fn an_image_is_not_written_over() {
        let top = tempfile::tempdir().unwrap();
        let unfinished = claim(top.path()).unwrap();
        unfinished.create(PAGES).unwrap();
        unfinished.finish(b"").unwrap();
        let error = claim(top.path()).unwrap_err();
        assert!(error.source.to_string().contains("an image already"), "{error:?}");
        assert!(top.path().join(PAGES).exists() && is_image(top.path()));
    }

    #[test]
    fn the_rest_of_an_interrupted_one_is_cleared_away_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join(PAGES), "half").unwrap();
        fs::write(top.path().join("manifest.unfinished"), "half").unwrap();
        fs::write(top.path().join("index.age"), "half").unwrap();
        drop(claim(top.path()).unwrap());
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        fs::write(top.path().join("thesis"), "mine").unwrap();
        fs::write(top.path().join(INDEX), "mine too").unwrap();
        let error = claim(top.path()).unwrap_err();
        assert!(error.source.to_string().contains("thesis"), "{error:?}");
        assert!(top.path().join("thesis").exists() && top.path().join(INDEX).exists());
    }
}
