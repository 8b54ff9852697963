//! `migrate list`: the migrations that have a journal here.

use crate::cli::List;
use crate::journal::{self, Past};
use crate::output::print;
use anyhow::Result;
use protocol::MigrationId;
use protocol::source::Entry;
use std::process::ExitCode;

pub(crate) fn run(list: &List) -> Result<ExitCode> {
    for (id, past, is_at_work) in journal::list(&list.state.state)? {
        let state = state(&past, is_at_work);
        print(&if list.json { json(id, &past, state) } else { text(id, &past, state) });
    }
    Ok(ExitCode::SUCCESS)
}

fn text(id: MigrationId, past: &Past, state: &str) -> String {
    format!("{id}  process {} to {}: {state}", past.header.root, past.header.destination)
}

fn json(id: MigrationId, past: &Past, state: &str) -> String {
    serde_json::json!({
        "id": id.to_string(),
        "pid": past.header.root,
        "destination": past.header.destination,
        "state": state,
        "at_unix_s": past.at_unix_s,
    })
    .to_string()
}

fn state(past: &Past, is_at_work: bool) -> &'static str {
    if is_at_work {
        return "under way";
    }
    match past.last {
        None => "not begun: nothing was touched",
        Some(Entry::Opened) => "cut off: it runs here; resume it to settle that",
        Some(Entry::Surrendered) => "in doubt: it stands still here; resume it",
        Some(Entry::RunsThere) => "runs there, and may lack pages that are here; resume it",
        Some(Entry::Relieved) => "runs there; what is left here waits to be ended; resume it",
        Some(Entry::Moved) => "moved",
        Some(Entry::Kept) => "stayed here",
        Some(Entry::Gone) => "ended here",
    }
}
