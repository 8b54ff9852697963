//! The directory of an image: four files, of which the last one makes it whole.
//!
//! `pages` and what else there is are written first and synced; then `manifest` gets its name. A
//! directory in which somebody was interrupted has no manifest: it holds no image, and the next
//! one who is to write there clears it away. A lock on the directory tells who still writes.

use crate::error::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

pub(super) const MANIFEST: &str = "manifest";
pub(super) const TREE: &str = "tree";
pub(super) const INDEX: &str = "index";
pub(super) const PAGES: &str = "pages";
const UNFINISHED_MANIFEST: &str = "manifest.unfinished";

/// What may be left where somebody was interrupted.
const LEFT: [&str; 4] = [PAGES, TREE, INDEX, UNFINISHED_MANIFEST];

/// A directory that is being written. Dropping it removes everything again.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    /// Whether it is ours to remove.
    is_new: bool,
    is_finished: bool,
    _lock: Flock<File>,
}

impl Unfinished {
    /// Makes the directory, or takes an empty one. Only its owner may look into a new one: it will
    /// hold whatever secrets the tree has.
    pub(super) fn claim(path: &Path) -> Result<Self, Error> {
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
        let unfinished = Self { path, is_new, is_finished: false, _lock: lock };
        unfinished.clear()?;
        Ok(unfinished)
    }

    /// Removes what an interrupted one has left, and refuses anything else.
    fn clear(&self) -> Result<(), Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).on("list", || self.object())? {
            names.push(entry.on("list", || self.object())?.file_name());
        }
        if names.iter().any(|name| name == MANIFEST) {
            let why = "it holds an image already";
            return Err(Error::invalid("write into", self.object(), why));
        }
        let is_foreign = |name: &&OsString| LEFT.iter().all(|left| name != left);
        if let Some(name) = names.iter().find(is_foreign) {
            let why = format!("it is not empty: it has {}", name.display());
            return Err(Error::invalid("write into", self.object(), why));
        }
        names.iter().try_for_each(|name| {
            let path = self.path.join(name);
            fs::remove_file(&path)
                .on("remove", || Object::File { path: path.display().to_string() })
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new file in it, that only its owner may read.
    pub(super) fn create(&self, name: &str) -> Result<File, Error> {
        let path = self.path.join(name);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        options.open(&path).on("make", || Object::File { path: path.display().to_string() })
    }

    /// Makes it an image: from here on it stays. Everything else has to be on the disk already.
    pub(super) fn finish(mut self, manifest: &[u8]) -> Result<(), Error> {
        let (unfinished, whole) = (self.path.join(UNFINISHED_MANIFEST), self.path.join(MANIFEST));
        super::framed::write(&unfinished, MANIFEST, manifest)?;
        sync(&self.path).on("write", || self.object())?;
        fs::rename(&unfinished, &whole).on("finish", || self.object())?;
        self.is_finished = true;
        sync(&self.path).on("finish", || self.object())?;
        match self.path.parent().filter(|_| self.is_new) {
            Some(parent) => sync(parent).on("finish", || self.object()),
            None => Ok(()),
        }
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
        // What cannot be removed is not taken for an image, and the next one removes it.
        for name in LEFT {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("image");
        let unfinished = Unfinished::claim(&path).unwrap();
        unfinished.create(PAGES).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(Unfinished::claim(&path).unwrap_err().source.to_string().contains("another"));
        drop(unfinished);
        assert!(!path.exists());
    }

    #[test]
    fn an_image_is_not_written_over() {
        let top = tempfile::tempdir().unwrap();
        Unfinished::claim(top.path()).unwrap().finish(b"").unwrap();
        let error = Unfinished::claim(top.path()).unwrap_err();
        assert!(error.source.to_string().contains("an image already"), "{error:?}");
    }

    #[test]
    fn the_rest_of_an_interrupted_one_is_cleared_away_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join(PAGES), "half").unwrap();
        fs::write(top.path().join(UNFINISHED_MANIFEST), "half").unwrap();
        drop(Unfinished::claim(top.path()).unwrap());
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        fs::write(top.path().join("thesis"), "mine").unwrap();
        let error = Unfinished::claim(top.path()).unwrap_err();
        assert!(error.source.to_string().contains("thesis"), "{error:?}");
        assert!(top.path().join("thesis").exists());
    }
}
