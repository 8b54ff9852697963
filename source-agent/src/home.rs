//! Where the image of a tree is while copies are made of it.
//!
//! Memory of programs: whoever is killed before he could remove it must not leave it for ever. So the
//! directory is locked by whoever writes or reads it, and the next one removes what nobody has locked.

use engine::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = "clone-";

/// The path that an image of this name has below the directory of the state.
pub(crate) fn path(state: &Path, name: &str) -> PathBuf {
    state.join(format!("{PREFIX}{name}"))
}

/// A directory that is locked, and goes away with everything in it when this is dropped. Whoever has
/// opened a file of it goes on reading that.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Home {
    /// A new one, for its owner alone.
    pub fn make(state: &Path, name: &str) -> Result<Self, Error> {
        let path = path(state, name);
        let made =
            fs::create_dir_all(state).and_then(|()| DirBuilder::new().mode(0o700).create(&path));
        made.on("make", || object(&path))?;
        Self::take_over(path)
    }

    /// One that is there.
    pub fn take_over(path: PathBuf) -> Result<Self, Error> {
        let lock = lock(&path).on("lock", || object(&path))?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it matters that it is gone.
    pub fn remove(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.path).on("remove", || object(&self.path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what was left by those who were killed.
pub fn clear_away_what_was_left(state: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(state).on("list", || object(state))?.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Locked by whoever still writes or reads it.
        if is_ours && let Ok(home) = Home::take_over(entry.path()) {
            home.remove()?;
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> io::Result<Flock<File>> {
    let directory = File::open(directory)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

fn object(path: &Path) -> Object {
    Object::File { path: path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_somebody_has_is_not_cleared_away_and_what_was_left_is() {
        let state = tempfile::tempdir().unwrap();
        let home = Home::make(state.path(), "a").unwrap();
        fs::write(home.path().join("pages"), "secret").unwrap();
        let mode = fs::metadata(home.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let left = path(state.path(), "b");
        fs::create_dir(&left).unwrap();
        let other = state.path().join("journal");
        fs::create_dir(&other).unwrap();
        clear_away_what_was_left(state.path()).unwrap();
        assert!(home.path().join("pages").exists() && !left.exists() && other.exists());
        let was = home.path().to_owned();
        drop(home);
        assert!(!was.exists());
    }
}
