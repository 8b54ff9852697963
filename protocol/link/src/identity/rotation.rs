//! Changing a host's key: the next one lies beside the one in use until every peer names both, and
//! then takes its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{IDENTITY, Identity, make};
use crate::atomic;
use crate::certificate::utc;
use crate::trust_file::{ContentProblem, TrustFileError};

/// The key that is to be used next.
pub(super) const NEXT: &str = "identity.next";
/// Keys that were used, each with the time when it was put aside.
const OLD: &str = "identity.old.";

/// The keys of a host beside the one in use.
#[derive(Debug)]
pub struct Rotation {
    directory: PathBuf,
}

/// A key that was in use once.
#[derive(Debug)]
pub struct OldKey {
    /// Its file. Removing it is all there is to forgetting it.
    pub path: PathBuf,
    /// The key.
    pub identity: Identity,
}

impl Rotation {
    /// Of the identity in `directory`.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where the next key is, or will be.
    pub fn path(&self) -> PathBuf {
        self.directory.join(NEXT)
    }

    /// The next key, if there is one.
    pub fn next(&self) -> Result<Option<Identity>, TrustFileError> {
        match Identity::read(&self.path()) {
            Err(error) if error.is_absent() => Ok(None),
            read => read.map(Some),
        }
    }

    /// Makes the next key, or finds the one that was made. Fails where there is no key in use.
    pub fn begin(&self) -> Result<Identity, TrustFileError> {
        Identity::load(&self.directory)?;
        let _made_or_met = make(&self.path())?;
        Identity::read(&self.path())
    }

    /// Puts the next key in use and the one in use aside; says where that is.
    ///
    /// The new key takes the old one's name in one step, so there is never none. Killed before that
    /// step, it leaves a second name of the key in use, which does no harm.
    pub fn finish(&self) -> Result<PathBuf, TrustFileError> {
        let _lock = atomic::lock(&self.directory)?;
        let none =
            TrustFileError::Content { path: self.path(), problem: ContentProblem::NoNextKey };
        self.next()?.ok_or(none)?;
        let path = self.directory.join(IDENTITY);
        let old = self.put_aside(&path)?;
        atomic::rename(&self.path(), &path)?;
        Ok(old)
    }

    fn put_aside(&self, path: &Path) -> Result<PathBuf, TrustFileError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let date = utc(now)[..10].to_owned();
        // Two rotations on one day are possible; a thousand are not.
        for number in 0..1000 {
            let suffix = if number == 0 { String::new() } else { format!(".{number}") };
            let old = self.directory.join(format!("{OLD}{date}{suffix}"));
            if atomic::link(path, &old)? {
                return Ok(old);
            }
        }
        Err(TrustFileError::Exists { path: self.directory.join(format!("{OLD}{date}")) })
    }

    /// The keys that were put aside and not yet removed.
    pub fn old(&self) -> Result<Vec<OldKey>, TrustFileError> {
        let entries = fs::read_dir(&self.directory);
        let entries = entries.map_err(TrustFileError::io("list", &self.directory))?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OLD))
            })
            .collect();
        paths.sort();
        let key = |path: PathBuf| Ok(OldKey { identity: Identity::read(&path)?, path });
        paths.into_iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_next_key_takes_the_place_of_the_one_in_use_and_that_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let first = Identity::create(home.path()).unwrap().fingerprint();
        let rotation = Rotation::of(home.path());
        let next = rotation.begin().unwrap().fingerprint();
        assert_eq!(rotation.begin().unwrap().fingerprint(), next, "begun twice is begun once");
        assert_eq!(Identity::load(home.path()).unwrap().fingerprint(), first);

        let old = rotation.finish().unwrap();
        assert_eq!(Identity::load(home.path()).unwrap().fingerprint(), next);
        assert_eq!(fs::metadata(home.path().join(IDENTITY)).unwrap().mode() & 0o7777, 0o600);
        assert!(rotation.next().unwrap().is_none());
        let kept = rotation.old().unwrap();
        assert_eq!((kept.len(), &kept[0].path), (1, &old));
        assert_eq!(kept[0].identity.fingerprint(), first);
    }

    #[test]
    fn nothing_is_put_in_use_that_was_not_made() {
        let home = tempfile::tempdir().unwrap();
        let rotation = Rotation::of(home.path());
        assert!(rotation.begin().unwrap_err().is_absent(), "there is no key to follow");
        let first = Identity::create(home.path()).unwrap().fingerprint();
        let refused = rotation.finish().unwrap_err();
        assert!(refused.to_string().contains("migrate identity rotate"), "{refused}");
        assert_eq!(Identity::load(home.path()).unwrap().fingerprint(), first);
        assert!(rotation.old().unwrap().is_empty());
    }

    #[test]
    fn two_rotations_on_one_day_keep_both_keys() {
        let home = tempfile::tempdir().unwrap();
        Identity::create(home.path()).unwrap();
        let rotation = Rotation::of(home.path());
        for _ in 0..2 {
            rotation.begin().unwrap();
            rotation.finish().unwrap();
        }
        assert_eq!(rotation.old().unwrap().len(), 2);
    }
}
