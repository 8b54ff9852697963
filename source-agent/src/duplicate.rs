//! `migrate clone`: the tree goes on, and copies of it begin where it was.

use crate::cli::{Dump, Duplicate, Restore};
use crate::complaint::{Complaint, only_root};
use crate::ending::Purpose;
use crate::output::Output;
use crate::restore::another;
use crate::{attempt, dump};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use tokio::task::spawn_blocking;

pub(crate) async fn run(duplicate: Duplicate) -> Result<ExitCode> {
    if let Err(complaint) = only_root("clone a process") {
        return Ok(complaint.say());
    }
    let state = &duplicate.state.state;
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let directory = state.join(format!("clone-{}", attempt::new_id()?));
    let output = Output::new(duplicate.json);
    let dumped = match dump::store(Dump::of_original(&duplicate, &directory)).await? {
        Ok(dumped) => dumped,
        Err(ending) => {
            ending.say(&output, Purpose::Dump);
            return Ok(ending.code().into());
        }
    };
    let still_ms = dumped.stood_still.as_secs_f64() * 1000.0;
    output.text(&format!("Process {} stood still for {still_ms:.1} ms and runs.", duplicate.pid));
    let copies = start_all(&duplicate, &directory).await;
    // Whoever still reads pages from it has it open.
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    copies
}

async fn start_all(duplicate: &Duplicate, directory: &Path) -> Result<ExitCode> {
    let output = Output::new(duplicate.json);
    for number in 0..duplicate.count {
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
