//! Files that appear, or change, as a whole: whoever reads one finds all of it or what was before,
//! also after a crash, and never with more permissions than it was meant to have.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};

use crate::TrustFileError;

/// For a private key.
pub(crate) const PRIVATE: u32 = 0o600;
/// For what everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Makes `path`, and its directory; `false` where there is one already, which stays as it is.
pub(crate) fn create(path: &Path, mode: u32, contents: &[u8]) -> Result<bool, TrustFileError> {
    make_directory(directory_of(path))?;
    let unfinished = write_beside(path, mode, contents)?;
    let named = link(&unfinished, path);
    let _already_gone = fs::remove_file(&unfinished);
    named
}

/// Where there is none.
pub(crate) fn make_directory(path: &Path) -> Result<(), TrustFileError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(TrustFileError::io("create", path))
}

/// Puts `contents` in the place of what is at `path`.
pub(crate) fn replace(path: &Path, mode: u32, contents: &[u8]) -> Result<(), TrustFileError> {
    let unfinished = write_beside(path, mode, contents)?;
    let renamed = rename(&unfinished, path);
    if renamed.is_err() {
        let _already_gone = fs::remove_file(&unfinished);
    }
    renamed
}

/// Gives a file a second name; `false` where the name is taken.
///
/// link(2) and not rename(2): rename would replace the file of somebody who was faster.
pub(crate) fn link(from: &Path, path: &Path) -> Result<bool, TrustFileError> {
    match fs::hard_link(from, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        linked => linked
            .and_then(|()| File::open(directory_of(path))?.sync_all())
            .map(|()| true)
            .map_err(TrustFileError::io("create", path)),
    }
}

pub(crate) fn rename(from: &Path, path: &Path) -> Result<(), TrustFileError> {
    fs::rename(from, path)
        .and_then(|()| File::open(directory_of(path))?.sync_all())
        .map_err(TrustFileError::io("write", path))
}

/// Until it is dropped, nobody else who asks for it changes anything in `directory`.
pub(crate) fn lock(directory: &Path) -> Result<Flock<File>, TrustFileError> {
    let opened = File::open(directory).map_err(TrustFileError::io("open", directory))?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| TrustFileError::io("lock", directory)(errno.into()))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_beside(path: &Path, mode: u32, contents: &[u8]) -> Result<PathBuf, TrustFileError> {
    let unfinished = unfinished_name(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)
        .map_err(TrustFileError::io("create", &unfinished))?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if written.is_err() {
        let _already_gone = fs::remove_file(&unfinished);
    }
    written.map_err(TrustFileError::io("write", &unfinished))?;
    Ok(unfinished)
}

/// Not to be met again, neither by another thread nor by what a crash left behind.
fn unfinished_name(path: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{now}.{number}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn whoever_is_faster_wins_and_nothing_is_left_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        assert!(create(&path, PRIVATE, b"first").unwrap());
        assert!(!create(&path, PRIVATE, b"second").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(home.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_has_the_mode_it_was_given() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        create(&path, PUBLIC, b"first").unwrap();
        replace(&path, PRIVATE, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, PRIVATE);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
