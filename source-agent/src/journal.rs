//! What an agent that comes after us has to know: one file a migration, one line a fact.
//!
//! A line only has to survive this agent, so it is written and then synced without anybody waiting
//! for the disk in the freeze: the sync follows the answer. When the kernel dies the tree dies too.
//! The file is locked as long as its agent lives, so that nobody drives a migration twice.

use crate::place::Place;
use engine::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use protocol::MigrationId;
use protocol::source::Entry;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A process of the tree, as it was when it stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) pid: i32,
    /// Tells it from another process that got its id later.
    pub(crate) start_ticks: u64,
    /// Of its memory in page records.
    pub(crate) space: Option<u32>,
    /// By job control, before anything was done to it.
    pub(crate) is_stopped: bool,
}

/// What is known before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) root: i32,
    pub(crate) destination: String,
    /// Of the kernel that the tree lives and dies with.
    pub(crate) boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(Header),
    /// Written before the stop is queued for each of them.
    Frozen(Vec<Member>),
    Entry {
        entry: Name,
        at_unix_s: u64,
    },
}

/// [`Entry`] as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Opened,
    Surrendered,
    RunsThere,
    Relieved,
    Moved,
    Kept,
    Gone,
}

/// Everything that a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) header: Header,
    pub(crate) members: Vec<Member>,
    pub(crate) last: Option<Entry>,
    pub(crate) at_unix_s: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: Flock<File>,
    path: PathBuf,
}

/// Far more than a migration ever writes.
const BYTES_MAX: u64 = 64 << 20;

impl Journal {
    /// A journal for a new migration.
    pub(crate) fn create(state: &Path, id: MigrationId, header: Header) -> Result<Self, Error> {
        let directory = directory(state);
        let here = || Object::File { path: directory.display().to_string() };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).on("make", here)?;
        let path = directory.join(id.to_string());
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).mode(0o600).open(&path);
        let mut journal = Self::lock(file.on("make", || object(&path))?, &path)?;
        journal.append(&Line::Header(header))?;
        Ok(journal)
    }

    /// The journal of a migration whose agent is gone, and what it says.
    pub(crate) fn reopen(state: &Path, id: MigrationId) -> Result<(Self, Past), Error> {
        let path = directory(state).join(id.to_string());
        let file = OpenOptions::new().read(true).append(true).open(&path);
        let journal = Self::lock(file.on("open", || object(&path))?, &path)?;
        let past = read(&path)?;
        Ok((journal, past))
    }

    fn lock(file: File, path: &Path) -> Result<Self, Error> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { file, path: path.to_owned() }),
            Err((_, nix::Error::EWOULDBLOCK)) => {
                let why = "another `migrate` is at work on it";
                Err(Error::invalid("take over", object(path), why))
            }
            Err((_, error)) => Err(error).on("lock", || object(path)),
        }
    }

    /// From here on the tree may have a stop queued.
    pub(crate) fn will_freeze(&mut self, members: Vec<Member>) -> Result<(), Error> {
        self.append(&Line::Frozen(members))
    }

    pub(crate) fn record(&mut self, entry: Entry) -> Result<(), Error> {
        let at_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        self.append(&Line::Entry { entry: name(entry), at_unix_s })
    }

    /// Not in the freeze.
    pub(crate) fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::warn!(%error, path = %self.path.display(), "the journal may be lost with the power");
        }
    }

    /// One write, so that a line is there or not. What a full disk cuts off is ended by a newline
    /// of the next line and skipped by the reader.
    fn append(&mut self, line: &Line) -> Result<(), Error> {
        let mut bytes =
            serde_json::to_vec(line).map_err(io::Error::from).on("write", || object(&self.path))?;
        bytes.push(b'\n');
        (&*self.file).write_all(&bytes).on("write to", || object(&self.path))
    }
}

fn directory(state: &Path) -> PathBuf {
    state.join("source")
}

fn object(path: &Path) -> Object {
    Object::File { path: path.display().to_string() }
}

/// What a journal says; a last line that was cut off says nothing.
pub(crate) fn read(path: &Path) -> Result<Past, Error> {
    let file = File::open(path).on("open", || object(path))?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).on("read", || object(path))?;
    let no_header = || Error::invalid("read", object(path), "it does not begin as a journal does");
    let mut lines = text.lines().map(serde_json::from_str::<Line>);
    let Some(Ok(Line::Header(header))) = lines.next() else { return Err(no_header()) };
    let mut past = Past { header, members: Vec::new(), last: None, at_unix_s: 0 };
    for line in lines.flatten() {
        match line {
            Line::Header(_) => return Err(no_header()),
            Line::Frozen(members) => past.members = members,
            Line::Entry { entry, at_unix_s } => {
                (past.last, past.at_unix_s) = (Some(entry_of(entry)), at_unix_s);
            }
        }
    }
    Ok(past)
}

/// Every migration that has a journal here, and whether an agent is at work on it.
pub(crate) fn list(state: &Path) -> Result<Vec<(MigrationId, Past, bool)>, Error> {
    let directory = directory(state);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.on("list", || object(&directory))?,
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match read(&entry.path()) {
            Ok(past) => found.push((id, past, is_at_work(&entry.path()))),
            Err(error) => tracing::warn!(%error, "a journal was left out"),
        }
    }
    found.sort_by_key(|(_, past, _)| past.at_unix_s);
    Ok(found)
}

fn is_at_work(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

impl Header {
    pub(crate) fn place(&self) -> Option<Place> {
        self.destination.parse().ok()
    }
}

fn name(entry: Entry) -> Name {
    match entry {
        Entry::Opened => Name::Opened,
        Entry::Surrendered => Name::Surrendered,
        Entry::RunsThere => Name::RunsThere,
        Entry::Relieved => Name::Relieved,
        Entry::Moved => Name::Moved,
        Entry::Kept => Name::Kept,
        Entry::Gone => Name::Gone,
    }
}

fn entry_of(name: Name) -> Entry {
    match name {
        Name::Opened => Entry::Opened,
        Name::Surrendered => Entry::Surrendered,
        Name::RunsThere => Entry::RunsThere,
        Name::Relieved => Entry::Relieved,
        Name::Moved => Entry::Moved,
        Name::Kept => Entry::Kept,
        Name::Gone => Entry::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn header() -> Header {
        Header { root: 7, destination: "hostb:7747".into(), boot_id: "boot".into() }
    }

    fn member(pid: i32) -> Member {
        Member { pid, start_ticks: 5, space: Some(1), is_stopped: false }
    }

    #[test]
    fn what_was_written_is_read_by_the_next_agent() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(state.path(), ID, header()).unwrap();
        for entry in [Entry::Opened, Entry::Surrendered, Entry::RunsThere] {
            journal.will_freeze(vec![member(7), member(8)]).unwrap();
            journal.record(entry).unwrap();
        }
        drop(journal);
        let (_, past) = Journal::reopen(state.path(), ID).unwrap();
        assert_eq!(past.header, header());
        assert_eq!(past.members, [member(7), member(8)]);
        assert_eq!(past.last, Some(Entry::RunsThere));
    }

    #[test]
    fn every_entry_is_the_same_after_being_written_and_read() {
        use Entry::*;
        for entry in [Opened, Surrendered, RunsThere, Relieved, Moved, Kept, Gone] {
            assert_eq!(entry_of(name(entry)), entry);
        }
    }

    #[test]
    fn a_line_that_was_cut_off_says_nothing() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(state.path(), ID, header()).unwrap();
        journal.record(Entry::Opened).unwrap();
        (&*journal.file).write_all(b"{\"entry\":{\"entry\":\"mov").unwrap();
        let past = read(&journal.path).unwrap();
        assert_eq!(past.last, Some(Entry::Opened));
    }

    #[test]
    fn a_migration_has_one_agent() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::create(state.path(), ID, header()).unwrap();
        let error = Journal::reopen(state.path(), ID).unwrap_err();
        assert!(error.source.to_string().contains("at work"), "{error:?}");
        assert!(list(state.path()).unwrap()[0].2);
        drop(journal);
        assert!(Journal::reopen(state.path(), ID).is_ok());
        assert!(!list(state.path()).unwrap()[0].2);
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x");
        for text in ["", "\n", "{\"frozen\":[]}\n", "hello\n"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:?}");
        }
        assert!(list(state.path()).unwrap().is_empty());
    }
}
