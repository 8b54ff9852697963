//! The journal: what this host has promised, a file for each migration.
//!
//! Lines are only ever added, and the last one is what a restarted agent goes by. A line is in the
//! kernel's hands when it is appended, so it survives the agent; the boot id in it tells whether
//! the kernel has survived too. [`Journal::sync`] makes it survive that as well, and is called
//! where nobody waits for it.

use link::Fingerprint;
use protocol::destination::{Boot, Entry};
use protocol::message::Complete;
use protocol::{Failure, MigrationId, Outcome};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Migrations that are kept though everything about them is settled, for whoever asks again.
pub const SETTLED_MAX: usize = 1000;
/// How long a source may be gone and still be told that its tree has run here. The documented time
/// within which a host that was down has to come back, or its operator has to settle the matter.
pub const ANSWERS_KEPT_FOR: Duration = Duration::from_hours(24 * 30);

/// A line with the longest failure, a few times over.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{action} the journal {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the journal {} has a line that means nothing: {line}", path.display())]
    Line { path: PathBuf, line: String },
}

/// What the last line of a migration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    pub entry: Entry,
    pub boot: Boot,
    /// The source that the migration belongs to.
    pub peer: Fingerprint,
}

#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    boot_id: String,
}

struct Settled {
    id: MigrationId,
    since: SystemTime,
    /// It ran here, complete or until it was lost.
    has_run: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    boot: String,
    peer: String,
    #[serde(flatten)]
    said: Said,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Said {
    Accepted,
    Running,
    Discarded,
    Complete { faults: u64, fault_pages: u64, pushed_pages: u64 },
    Lost { phase: i32, action: String, object: String, errno: i32, chain: Vec<String> },
}

impl Journal {
    /// In `state`/destination, which is made when it is not there.
    pub fn open(state: &Path, boot_id: String) -> Result<Self, JournalError> {
        let directory = state.join("destination");
        fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        Ok(Self { directory, boot_id })
    }

    /// Where a migration may leave other things that it needs.
    pub fn path(&self, id: MigrationId, extension: &str) -> PathBuf {
        self.directory.join(format!("{id}.{extension}"))
    }

    fn file(&self, id: MigrationId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    pub fn append(
        &self,
        id: MigrationId,
        peer: Fingerprint,
        entry: &Entry,
    ) -> Result<(), JournalError> {
        let path = self.file(id);
        let line = Line { boot: self.boot_id.clone(), peer: peer.to_string(), said: said(entry) };
        // An agent that died while it wrote left a line without an end; ours begins a new one.
        let mut text = b"\n".to_vec();
        serde_json::to_writer(&mut text, &line)
            .map_err(io::Error::from)
            .map_err(failed("write to", &path))?;
        text.push(b'\n');
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let mut file = file.map_err(failed("open", &path))?;
        file.write_all(&text).map_err(failed("write to", &path))
    }

    /// Whether anything was ever said about it.
    pub fn has(&self, id: MigrationId) -> bool {
        self.file(id).exists()
    }

    /// Forgets the oldest of what is settled, beyond [`SETTLED_MAX`]. What is forgotten would be
    /// answered with *discarded*: so what was discarded goes at any age, and what has run here not
    /// before [`ANSWERS_KEPT_FOR`] has passed. What is not settled is never forgotten.
    pub fn prune(&self, now: SystemTime) -> Result<usize, JournalError> {
        let mut settled = self.settled()?;
        settled.sort_unstable_by_key(|settled| settled.since);
        let mut beyond = settled.len().saturating_sub(SETTLED_MAX);
        let before = beyond;
        for Settled { id, since, has_run } in settled {
            let age = now.duration_since(since).unwrap_or_default();
            if beyond > 0 && (!has_run || age > ANSWERS_KEPT_FOR) {
                let path = self.file(id);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                beyond -= 1;
            }
        }
        Ok(before - beyond)
    }

    fn settled(&self) -> Result<Vec<Settled>, JournalError> {
        let mut settled = Vec::new();
        for id in self.ids()? {
            let Some(last) = self.last(id)? else { continue };
            let has_run = match last.entry {
                Entry::Accepted | Entry::Decided(Outcome::Running) => continue,
                Entry::Decided(_) => false,
                Entry::Complete(_) | Entry::Lost(_) => true,
            };
            let path = self.file(id);
            let about = fs::metadata(&path).and_then(|about| about.modified());
            settled.push(Settled { id, since: about.map_err(failed("look at", &path))?, has_run });
        }
        Ok(settled)
    }

    fn ids(&self) -> Result<Vec<MigrationId>, JournalError> {
        let failed = || failed("read", &self.directory);
        let directory = fs::read_dir(&self.directory).map_err(failed())?;
        let mut ids = Vec::new();
        for file in directory {
            let name = file.map_err(failed())?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<MigrationId>().ok()));
        }
        Ok(ids)
    }

    /// Makes everything said about a migration survive the kernel.
    pub fn sync(&self, id: MigrationId) -> Result<(), JournalError> {
        for path in [&self.file(id), &self.directory] {
            let file = File::open(path).map_err(failed("open", path))?;
            file.sync_all().map_err(failed("sync", path))?;
        }
        Ok(())
    }

    /// The last line about a migration, if there is one.
    pub fn last(&self, id: MigrationId) -> Result<Option<Last>, JournalError> {
        let path = self.file(id);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file.take(BYTES_MAX).read_to_string(&mut text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(failed("read", &path))?;
        // What does not end was being written when the agent died, and nobody was told of it.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines = whole.lines().rev().filter(|line| !line.is_empty());
        let mut last = None;
        for line in &mut lines {
            last = self.parse(line);
            // So was one that is followed by a line of the agent that came after it.
            if last.is_some() {
                break;
            }
            if line.ends_with('}') {
                return Err(JournalError::Line { path, line: line.to_owned() });
            }
        }
        Ok(last)
    }

    fn parse(&self, line: &str) -> Option<Last> {
        let line: Line = serde_json::from_str(line).ok()?;
        let boot = if line.boot == self.boot_id { Boot::Same } else { Boot::Another };
        Some(Last { entry: line.said.entry(), boot, peer: line.peer.parse().ok()? })
    }

    /// The migrations about which there is something left to do.
    pub fn unfinished(&self) -> Result<Vec<(MigrationId, Last)>, JournalError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            if let Some(last) = self.last(id)?
                && matches!(last.entry, Entry::Accepted | Entry::Decided(Outcome::Running))
            {
                found.push((id, last));
            }
        }
        Ok(found)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path, source }
}

fn said(entry: &Entry) -> Said {
    match entry {
        Entry::Accepted => Said::Accepted,
        Entry::Decided(Outcome::Running) => Said::Running,
        Entry::Decided(_) => Said::Discarded,
        Entry::Complete(Complete { faults, fault_pages, pushed_pages }) => Said::Complete {
            faults: *faults,
            fault_pages: *fault_pages,
            pushed_pages: *pushed_pages,
        },
        Entry::Lost(failure) => Said::Lost {
            phase: failure.phase,
            action: failure.action.clone(),
            object: failure.object.clone(),
            errno: failure.errno,
            chain: failure.chain.clone(),
        },
    }
}

impl Said {
    fn entry(self) -> Entry {
        match self {
            Self::Accepted => Entry::Accepted,
            Self::Running => Entry::Decided(Outcome::Running),
            Self::Discarded => Entry::Decided(Outcome::Discarded),
            Self::Complete { faults, fault_pages, pushed_pages } => {
                Entry::Complete(Complete { faults, fault_pages, pushed_pages })
            }
            Self::Lost { phase, action, object, errno, chain } => {
                let side = protocol::Side::Destination.into();
                Entry::Lost(Failure { side, phase, object, action, errno, chain })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Phase, Side};

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    struct Scene {
        journal: Journal,
        home: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let home = tempfile::tempdir().unwrap();
        Scene { journal: Journal::open(home.path(), "this boot".into()).unwrap(), home }
    }

    fn peer() -> Fingerprint {
        format!("SHA256:{}", "A".repeat(43)).parse().unwrap()
    }

    fn every_entry() -> Vec<Entry> {
        let failure = Failure::new(Side::Destination, Phase::Lazy, "go on with", "the tree");
        vec![
            Entry::Accepted,
            Entry::Decided(Outcome::Running),
            Entry::Decided(Outcome::Discarded),
            Entry::Complete(Complete { faults: 1, fault_pages: 2, pushed_pages: 3 }),
            Entry::Lost(failure.because("the host\nwas rebooted").with_errno(5)),
        ]
    }

    #[test]
    fn the_last_line_is_what_was_said_last() {
        let scene = scene();
        assert_eq!(scene.journal.last(ID).unwrap(), None);
        for entry in every_entry() {
            scene.journal.append(ID, peer(), &entry).unwrap();
            let last = scene.journal.last(ID).unwrap().unwrap();
            assert_eq!(last, Last { entry, boot: Boot::Same, peer: peer() });
        }
        scene.journal.sync(ID).unwrap();
    }

    #[test]
    fn another_boot_is_noticed() {
        let scene = scene();
        scene.journal.append(ID, peer(), &Entry::Accepted).unwrap();
        let later = Journal::open(scene.home.path(), "another boot".into()).unwrap();
        assert_eq!(later.last(ID).unwrap().unwrap().boot, Boot::Another);
    }

    #[test]
    fn a_line_that_was_being_written_says_nothing() {
        let scene = scene();
        scene.journal.append(ID, peer(), &Entry::Accepted).unwrap();
        let path = scene.journal.file(ID);
        let whole = fs::read(&path).unwrap();
        scene.journal.append(ID, peer(), &Entry::Decided(Outcome::Running)).unwrap();
        let both = fs::read(&path).unwrap();
        for length in whole.len()..both.len() - 1 {
            fs::write(&path, &both[..length]).unwrap();
            assert_eq!(scene.journal.last(ID).unwrap().unwrap().entry, Entry::Accepted, "{length}");
        }
        fs::write(&path, &both[..both.len() - 20]).unwrap();
        scene.journal.append(ID, peer(), &Entry::Decided(Outcome::Discarded)).unwrap();
        let last = scene.journal.last(ID).unwrap().unwrap();
        assert_eq!(last.entry, Entry::Decided(Outcome::Discarded));
    }

    #[test]
    fn a_whole_line_that_means_nothing_is_an_error_and_not_a_guess() {
        let scene = scene();
        fs::write(scene.journal.file(ID), "{\"entry\":\"later\"}\n").unwrap();
        assert!(matches!(scene.journal.last(ID), Err(JournalError::Line { .. })));
    }

    #[test]
    fn what_is_settled_is_forgotten_beyond_a_bound_but_never_what_may_be_asked_about() {
        let scene = scene();
        let note = |range: std::ops::Range<u64>, entry: &Entry| {
            for low in range {
                scene.journal.append(MigrationId { high: 0, low }, peer(), entry).unwrap();
            }
        };
        let has = |low| scene.journal.has(MigrationId { high: 0, low });
        note(1..2, &Entry::Decided(Outcome::Running));
        note(2..3, &Entry::Accepted);
        note(3..4, &Entry::Complete(Complete::default()));
        // Files that are written in one tick of the kernel's clock are of one age.
        let oldest = SystemTime::now() - Duration::from_secs(60);
        let path = scene.journal.file(MigrationId { high: 0, low: 3 });
        File::open(path).unwrap().set_modified(oldest).unwrap();
        let settled = u64::try_from(SETTLED_MAX).unwrap();
        note(10..10 + settled, &Entry::Decided(Outcome::Discarded));
        let now = SystemTime::now();
        assert_eq!(scene.journal.prune(now).unwrap(), 1);
        assert!(has(1) && has(2) && has(3), "one that was discarded has gone");
        note(10 + settled..12 + settled, &Entry::Decided(Outcome::Discarded));
        let later = now + ANSWERS_KEPT_FOR + Duration::from_secs(60);
        scene.journal.prune(later).unwrap();
        assert!(has(1) && has(2) && !has(3), "nobody can ask about the third any more");
        assert_eq!(scene.journal.prune(later).unwrap(), 0);
    }

    #[test]
    fn only_what_is_unfinished_is_taken_up_again() {
        let scene = scene();
        for (low, entry) in (1..).zip(every_entry()) {
            scene.journal.append(MigrationId { high: 0, low }, peer(), &entry).unwrap();
        }
        let mut found: Vec<u64> =
            scene.journal.unfinished().unwrap().iter().map(|(id, _)| id.low).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    }
}
