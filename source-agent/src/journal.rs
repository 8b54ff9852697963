//! What an agent that comes after us has to know: one file a migration, one line a fact.
//!
//! A line only has to survive this agent, so it is written and then synced without anybody waiting
//! for the disk in the freeze: the sync follows the answer. When the kernel dies the tree dies too.
//! The file is locked as long as its agent lives, so that nobody drives a migration twice.

mod shelf;

use crate::addresses::Addresses;
use crate::place::Place;
use engine::hooks::Hooks;
use engine::kinds::HeldObject;
use engine::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use protocol::MigrationId;
use protocol::source::Entry;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use shelf::list;

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

/// A connection of the frozen tree that was made deaf: [`HeldObject`] as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    kind: String,
    pid: i32,
    fd: i32,
    inode: u64,
    before: Vec<u8>,
}

/// What is known before anything is touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) root: i32,
    pub(crate) destination: String,
    /// Of the kernel that the tree lives and dies with.
    pub(crate) boot_id: String,
    /// That move with the tree.
    #[serde(default, skip_serializing_if = "Addresses::is_empty")]
    pub(crate) addresses: Addresses,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(Header),
    /// Written before the stop is queued for each of them.
    Frozen(Vec<Member>),
    /// Written after it was done to them, microseconds later.
    Held(Vec<Held>),
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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Past {
    pub(crate) header: Header,
    pub(crate) members: Vec<Member>,
    pub(crate) held: Vec<HeldObject>,
    pub(crate) last: Option<Entry>,
    /// When the last entry was made; before there is one, when the file was last written.
    pub(crate) at_unix_s: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    page: Page,
    path: PathBuf,
}

/// A move that is refused before anything was touched leaves no file.
#[derive(Debug)]
enum Page {
    Blank(Header),
    Begun(Flock<File>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReopenError {
    #[error("there is no migration {id} in the journals of this host, which are in {state}")]
    Unknown { id: MigrationId, state: String },
    #[error("another `migrate` is at work on migration {id}, and nothing was changed")]
    AtWork { id: MigrationId },
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Past {
    /// Nothing of it is left to be done.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.last, Some(Entry::Moved | Entry::Kept | Entry::Gone))
    }
}

/// Far more than a migration ever writes.
const BYTES_MAX: u64 = 64 << 20;

impl Journal {
    /// A journal for a new migration. The file comes with the first entry; where none can be made
    /// at all, that is said before anything is touched.
    pub(crate) fn plan(state: &Path, id: MigrationId, header: Header) -> Result<Self, Error> {
        let directory = directory(state);
        let here = || object(&directory);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).on("make", here)?;
        access(&directory, AccessFlags::W_OK).on("write into", here)?;
        Ok(Self { page: Page::Blank(header), path: directory.join(id.to_string()) })
    }

    fn begin(&mut self, header: Header) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).mode(0o600).open(&self.path);
        let file = lock(file.on("make", || object(&self.path))?, &self.path)?;
        self.page = Page::Begun(file.ok_or_else(|| {
            Error::invalid("begin", object(&self.path), "another `migrate` is at work on it")
        })?);
        self.append(&Line::Header(header))?;
        shelf::prune(self.path.parent().unwrap_or(&self.path));
        Ok(())
    }

    /// The journal of a migration whose agent is gone, and what it says.
    pub(crate) fn reopen(state: &Path, id: MigrationId) -> Result<(Self, Past), ReopenError> {
        let path = directory(state).join(id.to_string());
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(unknown(state, id));
            }
            other => other.on("open", || object(&path))?,
        };
        let page = Page::Begun(lock(file, &path)?.ok_or(ReopenError::AtWork { id })?);
        let past = read(&path)?;
        Ok((Self { page, path }, past))
    }

    /// From here on the tree may have a stop queued.
    pub(crate) fn will_freeze(&mut self, members: Vec<Member>) -> Result<(), Error> {
        self.append(&Line::Frozen(members))
    }

    /// Whoever lets the tree go on here has to undo it.
    pub(crate) fn has_held(&mut self, held: &[HeldObject]) -> Result<(), Error> {
        self.append(&Line::Held(held.iter().map(Held::from).collect()))
    }

    pub(crate) fn record(&mut self, entry: Entry) -> Result<(), Error> {
        let at_unix_s = unix_s(SystemTime::now());
        self.append(&Line::Entry { entry: name(entry), at_unix_s })
    }

    /// Not in the freeze.
    pub(crate) fn sync(&self) {
        let Page::Begun(file) = &self.page else { return };
        if let Err(error) = file.sync_data() {
            tracing::warn!(%error, path = %self.path.display(), "the journal may be lost with the power");
        }
    }

    /// One write, so that a line is there or not. What a full disk or our death has cut off is ended
    /// by a newline before the next line, or the next line would be skipped with it.
    fn append(&mut self, line: &Line) -> Result<(), Error> {
        if let Page::Blank(header) = &self.page {
            self.begin(header.clone())?;
        }
        let mut bytes = match line {
            Line::Header(_) => Vec::new(),
            _ => b"\n".to_vec(),
        };
        serde_json::to_writer(&mut bytes, line)
            .map_err(io::Error::from)
            .on("write", || object(&self.path))?;
        bytes.push(b'\n');
        let Page::Begun(file) = &self.page else { return Ok(()) };
        (&**file).write_all(&bytes).on("write to", || object(&self.path))
    }
}

/// `None` while another agent has it.
fn lock(file: File, path: &Path) -> Result<Option<Flock<File>>, Error> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::new("lock", object(path), errno.into())),
    }
}

fn directory(state: &Path) -> PathBuf {
    state.join("source")
}

fn object(path: &Path) -> Object {
    Object::File { path: path.display().to_string() }
}

fn unknown(state: &Path, id: MigrationId) -> ReopenError {
    ReopenError::Unknown { id, state: directory(state).display().to_string() }
}

/// What the journal of a migration says, whoever is at work on it.
pub(crate) fn look(state: &Path, id: MigrationId) -> Result<Past, ReopenError> {
    let path = directory(state).join(id.to_string());
    match read(&path) {
        Err(error) if error.is_gone() => Err(unknown(state, id)),
        other => Ok(other?),
    }
}

/// What a journal says; a last line that was cut off says nothing.
pub(crate) fn read(path: &Path) -> Result<Past, Error> {
    let file = File::open(path).on("open", || object(path))?;
    let written = file.metadata().and_then(|file| file.modified());
    let at_unix_s = written.map_or(0, unix_s);
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).on("read", || object(path))?;
    let no_header = || Error::invalid("read", object(path), "it does not begin as a journal does");
    let mut lines = text.lines().map(serde_json::from_str::<Line>);
    let Some(Ok(Line::Header(header))) = lines.next() else { return Err(no_header()) };
    let (members, held) = (Vec::new(), Vec::new());
    let mut past = Past { header, members, held, last: None, at_unix_s };
    for line in lines.flatten() {
        match line {
            Line::Header(_) => return Err(no_header()),
            Line::Frozen(members) => past.members = members,
            Line::Held(held) => past.held = held.into_iter().map(HeldObject::from).collect(),
            Line::Entry { entry, at_unix_s } => {
                (past.last, past.at_unix_s) = (Some(entry_of(entry)), at_unix_s);
            }
        }
    }
    Ok(past)
}

fn unix_s(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs())
}

impl From<&HeldObject> for Held {
    fn from(held: &HeldObject) -> Self {
        let HeldObject { kind, pid, fd, inode, before } = held.clone();
        Self { kind, pid, fd, inode, before }
    }
}

impl From<Held> for HeldObject {
    fn from(Held { kind, pid, fd, inode, before }: Held) -> Self {
        Self { kind, pid, fd, inode, before }
    }
}

impl Header {
    /// The operator's hooks, told what they need to know of this move.
    pub(crate) fn hooks(&self, config: &Path, id: MigrationId) -> Hooks {
        Hooks::beneath(config)
            .and("MIGRATE_ID", id.to_string())
            .and("MIGRATE_PID", self.root.to_string())
            .and("MIGRATE_DESTINATION", self.destination.clone())
            .and("MIGRATE_ADDRESSES", self.addresses.named.join(" "))
    }

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
        Header {
            root: 7,
            destination: "hostb:7747".into(),
            boot_id: "boot".into(),
            ..Header::default()
        }
    }

    fn held() -> HeldObject {
        let (kind, before) = ("a kind".to_owned(), vec![1, 2]);
        HeldObject { kind, pid: 7, fd: 3, inode: 9, before }
    }

    fn member(pid: i32) -> Member {
        Member { pid, start_ticks: 5, space: Some(1), is_stopped: false }
    }

    #[test]
    fn what_was_written_is_read_by_the_next_agent() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::plan(state.path(), ID, header()).unwrap();
        for entry in [Entry::Opened, Entry::Surrendered, Entry::RunsThere] {
            journal.will_freeze(vec![member(7), member(8)]).unwrap();
            journal.has_held(&[held()]).unwrap();
            journal.record(entry).unwrap();
        }
        drop(journal);
        let (_, past) = Journal::reopen(state.path(), ID).unwrap();
        assert_eq!(past.header, header());
        assert_eq!(past.members, [member(7), member(8)]);
        assert_eq!(past.held, [held()]);
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
        let mut journal = Journal::plan(state.path(), ID, header()).unwrap();
        journal.record(Entry::Opened).unwrap();
        let mut file = OpenOptions::new().append(true).open(&journal.path).unwrap();
        file.write_all(b"{\"entry\":{\"entry\":\"mov").unwrap();
        let past = read(&journal.path).unwrap();
        assert_eq!(past.last, Some(Entry::Opened));
        // And takes nothing of the next one with it.
        journal.record(Entry::Surrendered).unwrap();
        assert_eq!(read(&journal.path).unwrap().last, Some(Entry::Surrendered));
    }

    #[test]
    fn a_migration_has_one_agent() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::plan(state.path(), ID, header()).unwrap();
        journal.record(Entry::Opened).unwrap();
        let error = Journal::reopen(state.path(), ID).unwrap_err();
        assert!(matches!(error, ReopenError::AtWork { id: ID }), "{error:?}");
        drop(journal);
        assert!(Journal::reopen(state.path(), ID).is_ok());
    }

    #[test]
    fn what_touched_nothing_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::plan(state.path(), ID, header()).unwrap();
        journal.sync();
        drop(journal);
        assert!(list(state.path()).unwrap().is_empty());
        let error = Journal::reopen(state.path(), ID).unwrap_err();
        assert!(error.to_string().contains(&ID.to_string()), "{error}");
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("x");
        for text in ["", "\n", "{\"frozen\":[]}\n", "hello\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text:?}");
        }
        assert!(list(state.path()).unwrap().is_empty());
    }
}
