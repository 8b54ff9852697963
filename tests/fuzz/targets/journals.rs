//! The journals of both agents and what they leave behind: files that a crash may cut anywhere.

#![no_main]

use dest_agent::journal::Journal;
use dest_agent::left::Left;
use libfuzzer_sys::fuzz_target;
use protocol::MigrationId;
use std::sync::LazyLock;

const ID: MigrationId = MigrationId { high: 1, low: 2 };

static HOME: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory"));
static JOURNAL: LazyLock<Journal> =
    LazyLock::new(|| Journal::open(HOME.path(), "this boot".into()).expect("a journal"));

fuzz_target!(|bytes: &[u8]| {
    let journal = &*JOURNAL; // makes the directory
    let path = HOME.path().join("destination").join(ID.to_string());
    std::fs::write(&path, bytes).expect("a file can be written");
    let _ = journal.last(ID);
    let _ = journal.unfinished();
    source_agent::fuzzing::journal(&path);
    if let Ok(Some(left)) = Left::read(&path) {
        for space in &left.spaces {
            let _ = space.lazy();
        }
    }
});
