//! `migrate clone`: the tree goes on, and copies of it begin where it was.

use crate::cli::{Dump, Duplicate, Restore};
use crate::complaint::{Complaint, only_root};
use crate::ending::{Ending, Purpose};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::restore::another;
use crate::{attempt, dump};
use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::task::spawn_blocking;

pub(crate) async fn run(duplicate: Duplicate) -> Result<ExitCode> {
    if let Err(complaint) = only_root("clone a process") {
        return Ok(complaint.say());
    }
    let state = &duplicate.state.state;
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    clear_away_what_was_left(state)?;
    let directory = state.join(format!("{PREFIX}{}", attempt::new_id()?));
    let output = Output::new(duplicate.json);
    let interrupt = dump::interrupt()?;
    let original = Dump::of_original(&duplicate, &directory);
    let dumped = match dump::store(original, Arc::clone(&interrupt)).await? {
        Ok(dumped) => dumped,
        Err(ending) => {
            ending.say(&output, Purpose::Dump);
            return Ok(ending.code().into());
        }
    };
    let still_ms = dumped.stood_still.as_secs_f64() * 1000.0;
    output.text(&format!("Process {} stood still for {still_ms:.1} ms and runs.", duplicate.pid));
    let _lock = lock(&directory)?;
    let copies = start_all(&duplicate, &directory, &interrupt).await;
    // Whoever still reads pages from it has it open.
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    copies
}

async fn start_all(
    duplicate: &Duplicate,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<ExitCode> {
    let output = Output::new(duplicate.json);
    for number in 0..duplicate.count {
        if interrupt.is_raised() {
            let (count, code) = (duplicate.count, Ending::Cancelled.code());
            output.text(&format!("Cancelled. {number} of {count} copies run."));
            return Ok(code.into());
        }
        let restore = Restore::of_clone(duplicate, directory);
        let started = spawn_blocking(move || another::start(&restore)).await?;
        match started.context("start a copy")? {
            Ok(started) => started.restored.tell(&output),
            Err(code) => {
                let why = format!("{number} of {} copies run", duplicate.count);
                Complaint::failed(why).say();
                return Ok(code.into());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Memory of programs: whoever was killed before he could remove it must not leave it for ever.
fn clear_away_what_was_left(state: &Path) -> Result<()> {
    for entry in fs::read_dir(state)?.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Locked by whoever still writes or reads it.
        if is_ours && let Ok(_lock) = lock(&entry.path()) {
            let removed = fs::remove_dir_all(entry.path());
            removed.with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<Flock<File>> {
    let directory = File::open(directory)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

const PREFIX: &str = "clone-";
