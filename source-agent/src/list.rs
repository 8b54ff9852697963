//! `migrate list`: the migrations that have a journal here.

use crate::cli::{Agent, List, Status};
use crate::client::Client;
use crate::complaint::Complaint;
use crate::frames::Live;
use crate::journal::{self, Header, Past};
use crate::output::print;
use anyhow::Result;
use link::utc;
use protocol::MigrationId;
use protocol::source::Entry;
use std::path::Path;
use std::process::ExitCode;

pub(crate) async fn run(list: &List) -> Result<ExitCode> {
    for found in all(&list.agent, &list.state.state).await? {
        print(&found.line(list.json));
    }
    Ok(ExitCode::SUCCESS)
}

/// Of one migration, or of all that are not settled. 0 also when there are none.
pub(crate) async fn status(status: &Status) -> Result<ExitCode> {
    let mut found = all(&status.agent, &status.state.state).await?;
    found.retain(|found| status.id.map_or(!found.is_settled, |id| found.id == id));
    found.iter().for_each(|found| print(&found.line(status.json)));
    if let (true, Some(id)) = (found.is_empty(), status.id) {
        let why = format!("there is no migration {id} in the journals of this host");
        return Ok(Complaint::usage(why).say());
    }
    Ok(ExitCode::SUCCESS)
}

/// One that is under way here, or that waits to be settled.
pub(crate) async fn open(agent: &Agent, journals: &Path) -> Result<Option<MigrationId>> {
    let found = all(agent, journals).await?;
    Ok(found.into_iter().find(|found| !found.is_settled).map(|found| found.id))
}

/// A migration as it is listed.
#[derive(Debug)]
struct Found {
    id: MigrationId,
    pid: i32,
    destination: String,
    state: String,
    at_unix_s: u64,
    is_at_work: bool,
    is_settled: bool,
}

/// Those that have a journal, and those that the source agent has only begun; the newest last.
async fn all(agent: &Agent, journals: &Path) -> Result<Vec<Found>> {
    let mut live = Client { agent, state: journals }.live().await;
    let mut found = Vec::new();
    for (id, past, is_at_work) in journal::list(journals)? {
        let phase = live.iter().position(|live| live.id == id).map(|at| live.swap_remove(at).phase);
        let (is_at_work, at_unix_s) = (is_at_work || phase.is_some(), past.at_unix_s);
        let state = phase.map_or_else(|| state(&past, is_at_work).to_owned(), under_way);
        let is_settled = past.is_settled() && !is_at_work;
        let Header { root: pid, destination, .. } = past.header;
        found.push(Found { id, pid, destination, state, at_unix_s, is_at_work, is_settled });
    }
    found.extend(live.into_iter().map(only_begun));
    found.sort_by_key(|found| found.at_unix_s);
    Ok(found)
}

/// Without a journal yet.
fn only_begun(live: Live) -> Found {
    let Live { id, pid, destination, phase, since_unix_s: at_unix_s } = live;
    let (state, is_at_work, is_settled) = (under_way(phase), true, false);
    Found { id, pid, destination, state, at_unix_s, is_at_work, is_settled }
}

fn under_way(phase: String) -> String {
    if phase.is_empty() { UNDER_WAY.to_owned() } else { format!("{UNDER_WAY}: {phase}") }
}

const UNDER_WAY: &str = "under way";

impl Found {
    fn line(&self, json: bool) -> String {
        let Self { id, pid, destination, state, at_unix_s, .. } = self;
        if json {
            return serde_json::json!({
                "id": id.to_string(),
                "pid": pid,
                "destination": destination,
                "state": state,
                "at_unix_s": at_unix_s,
            })
            .to_string();
        }
        format!("{id}  process {pid} to {destination}: {state}{}", self.when())
    }

    /// When it ended, or since when nobody has done anything about it.
    fn when(&self) -> String {
        match (self.is_settled, self.is_at_work) {
            (true, _) => format!(", {}", utc(self.at_unix_s)),
            (false, true) => String::new(),
            (false, false) => format!(" (since {})", utc(self.at_unix_s)),
        }
    }
}

fn state(past: &Past, is_at_work: bool) -> &'static str {
    if is_at_work {
        return UNDER_WAY;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[test]
    fn what_is_documented_is_what_is_listed() {
        let documented = include_str!("../../docs/json.md");
        let (id, destination) = (MigrationId { high: 1, low: 2 }, "b:1".to_owned());
        let phase = "rounds".to_owned();
        let found = only_begun(Live { id, pid: 7, destination, phase, since_unix_s: 5 });
        let listed = found.line(true);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let section = documented.split_once("| field of `list`").unwrap().1;
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        for field in listed.as_object().unwrap().keys() {
            assert!(rows.iter().any(|row| row.starts_with(&format!("| `{field}`"))), "{field}");
        }
        assert_eq!(rows.len(), listed.as_object().unwrap().len());
        assert_eq!(listed["at_unix_s"], 5, "a move without a journal has begun some time");
    }

    fn journal(state: &Path, low: u64, last: Entry) -> Journal {
        let header = Header {
            root: 7,
            destination: "b:1".into(),
            boot_id: "boot".into(),
            ..Header::default()
        };
        let mut journal = Journal::plan(state, MigrationId { high: 1, low }, header).unwrap();
        journal.record(last).unwrap();
        journal
    }

    async fn listed(state: &Path) -> Vec<String> {
        let agent = Agent { socket: state.join("no-agent") };
        let found = all(&agent, state).await.unwrap();
        found.iter().map(|found| found.line(false)).collect()
    }

    /// When a journal was written last is changed from outside, as if so much time had passed.
    fn was_written_at(state: &Path, low: u64, unix_s: u64) {
        let path = state.join("source").join(MigrationId { high: 1, low }.to_string());
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, after) = text.split_once("\"at_unix_s\":").unwrap();
        let rest = after.trim_start_matches(|digit: char| digit.is_ascii_digit());
        std::fs::write(&path, format!("{before}\"at_unix_s\":{unix_s}{rest}")).unwrap();
    }

    #[tokio::test]
    async fn the_newest_is_the_last_and_each_has_its_date() {
        let home = tempfile::tempdir().unwrap();
        drop(journal(home.path(), 1, Entry::Moved));
        drop(journal(home.path(), 2, Entry::Kept));
        let at_work = journal(home.path(), 3, Entry::Opened);
        drop(journal(home.path(), 4, Entry::Surrendered));
        for (low, unix_s) in [(1, 1_803_124_740), (2, 951_782_400), (4, 951_782_460)] {
            was_written_at(home.path(), low, unix_s);
        }
        let lines = listed(home.path()).await;
        assert!(lines[0].ends_with(": stayed here, 2000-02-29 00:00 UTC"), "{lines:#?}");
        assert!(lines[1].ends_with("; resume it (since 2000-02-29 00:01 UTC)"), "{lines:#?}");
        assert!(lines[2].ends_with(": under way"), "{lines:#?}");
        assert!(lines[3].ends_with(": moved, 2027-02-20 11:59 UTC"), "{lines:#?}");
        drop(at_work);
    }
}
