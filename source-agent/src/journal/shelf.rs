//! All journals of a host: which there are, and how long the settled ones are kept.

use super::{Past, directory, object, read};
use engine::{Error, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use protocol::MigrationId;
use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Settled ones that `migrate list` still shows.
const SETTLED_MAX: usize = 100;
const SETTLED_AGE_MAX: Duration = Duration::from_hours(24 * 30);

/// Every migration that has a journal here, and whether an agent is at work on it; the oldest first.
pub(crate) fn list(state: &Path) -> Result<Vec<(MigrationId, Past, bool)>, Error> {
    let found = all(&directory(state))?;
    Ok(found.into_iter().map(|found| (found.id, found.past, is_at_work(&found.path))).collect())
}

/// Takes away what is settled and old. Not being able to is no reason to fail a move.
pub(super) fn prune(directory: &Path) {
    let pruned = all(directory).and_then(|found| {
        let old = too_many(&found, seconds_now());
        old.iter().try_for_each(|path| fs::remove_file(path).on("remove", || object(path)))
    });
    if let Err(error) = pruned {
        tracing::warn!(error = crate::ending::chain(&error).join(": "), "old journals stay");
    }
}

struct Found {
    id: MigrationId,
    path: PathBuf,
    past: Past,
}

fn all(directory: &Path) -> Result<Vec<Found>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.on("list", || object(directory))?,
    };
    let mut found: Vec<Found> = entries.flatten().filter_map(|entry| journal_in(&entry)).collect();
    found.sort_by_key(|found| found.past.at_unix_s);
    Ok(found)
}

fn journal_in(entry: &DirEntry) -> Option<Found> {
    let (id, path) = (entry.file_name().to_str()?.parse().ok()?, entry.path());
    match read(&path) {
        Ok(past) => Some(Found { id, path, past }),
        Err(error) => {
            if is_news(&path) {
                let error = crate::ending::chain(&error).join(": ");
                tracing::warn!(error, "a journal was left out");
            }
            None
        }
    }
}

/// An agent that looks every few seconds complains of each file once.
fn is_news(path: &Path) -> bool {
    static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned())
}

/// Of those that are settled, oldest first.
fn too_many(found: &[Found], now_unix_s: u64) -> Vec<PathBuf> {
    let settled: Vec<&Found> = found.iter().filter(|found| found.past.is_settled()).collect();
    let surplus = settled.len().saturating_sub(SETTLED_MAX);
    let oldest = now_unix_s.saturating_sub(SETTLED_AGE_MAX.as_secs());
    let is_old = |index: usize, found: &Found| index < surplus || found.past.at_unix_s < oldest;
    let old = settled.iter().enumerate().filter(|(index, found)| is_old(*index, found));
    old.map(|(_, found)| found.path.clone()).collect()
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn is_at_work(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Header, Journal};
    use protocol::source::Entry;

    fn journal(state: &Path, low: u64, last: Entry) -> Journal {
        let id = MigrationId { high: 1, low };
        let header = Header {
            root: 7,
            destination: "b:1".into(),
            boot_id: "boot".into(),
            ..Header::default()
        };
        let mut journal = Journal::plan(state, id, header).unwrap();
        journal.record(last).unwrap();
        journal
    }

    #[test]
    fn an_agent_at_work_is_seen() {
        let state = tempfile::tempdir().unwrap();
        let journal = journal(state.path(), 1, Entry::Opened);
        assert!(list(state.path()).unwrap()[0].2);
        drop(journal);
        assert!(!list(state.path()).unwrap()[0].2);
    }

    #[test]
    fn of_the_settled_ones_the_last_hundred_are_kept_and_all_that_are_not() {
        let state = tempfile::tempdir().unwrap();
        drop(journal(state.path(), 1, Entry::Surrendered));
        for low in 2..120 {
            drop(journal(state.path(), low, Entry::Kept));
        }
        let kept = list(state.path()).unwrap();
        assert!(kept.len() <= SETTLED_MAX + 2, "{}", kept.len());
        assert!(kept.iter().any(|(id, ..)| id.low == 1), "it is in doubt");
    }

    #[test]
    fn a_file_that_is_no_journal_is_complained_of_once() {
        let path = Path::new("/nowhere/7");
        assert!(is_news(path) && !is_news(path) && is_news(Path::new("/nowhere/8")));
    }

    #[test]
    fn what_was_settled_long_ago_goes() {
        let state = tempfile::tempdir().unwrap();
        drop(journal(state.path(), 1, Entry::Moved));
        drop(journal(state.path(), 2, Entry::RunsThere));
        let found = all(&directory(state.path())).unwrap();
        assert!(too_many(&found, seconds_now()).is_empty());
        let later = seconds_now() + SETTLED_AGE_MAX.as_secs() + 60;
        assert_eq!(too_many(&found, later).len(), 1);
    }
}
