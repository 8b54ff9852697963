//! The key that sources are shown: read anew when its file has changed, so that a rotated key or a
//! renewed certificate counts for the next connection, and no agent has to be restarted for it.

use crate::report;
use link::{Description, Fingerprint, Identity, Listener, Refused, Tuning};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

/// What changes when a file is replaced or written, or when its mode is mended (inode(7), ctime).
type Stamp = Option<(u64, i64, i64, i64, i64, u64)>;

/// What a source sees of an identity.
type Seen = (Fingerprint, Option<Result<Description, Refused>>);

#[derive(Debug)]
pub struct Showing {
    config: PathBuf,
    last: Mutex<(Stamp, Seen)>,
}

impl Showing {
    /// Makes the identity where there is none.
    pub fn load(config: &Path) -> Result<(Self, Identity), link::TrustFileError> {
        Identity::load_or_create(config)?;
        // Before it is read: what changes meanwhile is read again.
        let stamp = stamp(&config.join(link::IDENTITY));
        let identity = Identity::load(config)?;
        let last = Mutex::new((stamp, seen(&identity)));
        Ok((Self { config: config.to_owned(), last }, identity))
    }

    /// A file that cannot be used is said once, and what was shown before is shown on.
    pub fn look(&self, listener: &Listener) {
        let Some(loaded) = self.changed() else { return };
        let shown = loaded.map_err(|error| report::chain(&error)).and_then(|identity| {
            let shown = listener.show(&identity, &Tuning::bulk());
            shown.map(|()| identity.fingerprint()).map_err(|error| report::chain(&error))
        });
        match shown {
            Ok(fingerprint) => tracing::info!("sources are shown {fingerprint} from now on"),
            Err(chain) => tracing::error!("sources are shown the key from before: {chain}"),
        }
    }

    /// What is to be shown instead, if the file has changed and says something else now.
    fn changed(&self) -> Option<Result<Identity, link::TrustFileError>> {
        let now = stamp(&self.config.join(link::IDENTITY));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut last.0, now) == now {
            return None;
        }
        let loaded = Identity::load(&self.config);
        if let Ok(identity) = &loaded {
            let seen = seen(identity);
            if seen == std::mem::replace(&mut last.1, seen.clone()) {
                return None;
            }
        }
        Some(loaded)
    }
}

fn seen(identity: &Identity) -> Seen {
    (identity.fingerprint(), identity.description())
}

fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    let (written, changed) =
        ((about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec()));
    Some((about.ino(), written.0, written.1, changed.0, changed.1, about.size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn nothing_is_said_of_a_key_that_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let (showing, _made) = Showing::load(home.path()).unwrap();
        assert!(showing.changed().is_none(), "it was made just now");
        let path = home.path().join(link::IDENTITY);
        fs::write(&path, fs::read(&path).unwrap()).unwrap();
        assert!(showing.changed().is_none(), "it was written again");
    }

    #[test]
    fn a_new_key_is_shown_when_its_mode_is_mended() {
        let home = tempfile::tempdir().unwrap();
        let (showing, _old) = Showing::load(home.path()).unwrap();
        let other = tempfile::tempdir().unwrap();
        let next = Identity::create(other.path()).unwrap();
        let path = home.path().join(link::IDENTITY);
        fs::copy(other.path().join(link::IDENTITY), &path).unwrap();
        set_mode(&path, 0o644);
        assert!(showing.changed().unwrap().is_err());
        assert!(showing.changed().is_none(), "it is said once");
        set_mode(&path, 0o600);
        let shown = showing.changed().unwrap().unwrap();
        assert_eq!(shown.fingerprint(), next.fingerprint());
    }
}
