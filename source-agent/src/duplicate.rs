//! `migrate clone`: the tree goes on, and copies of it begin where it was, here or on another host.

mod elsewhere;
pub(crate) mod line;

use crate::cli::{Dump, Duplicate, Restore};
use crate::complaint::{Complaint, only_root};
use crate::ending::{Ending, Purpose};
use crate::home::{self, Home};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::restore::another;
use crate::{attempt, dump};
use anyhow::{Context as _, Result};
use std::fs;
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
    home::clear_away_what_was_left(state)?;
    let interrupt = dump::interrupt()?;
    match duplicate.to.clone() {
        Some(to) => elsewhere::run(&duplicate, to, &interrupt).await,
        None => here(&duplicate, &interrupt).await,
    }
}

async fn here(duplicate: &Duplicate, interrupt: &Arc<Interrupt>) -> Result<ExitCode> {
    let output = Output::new(duplicate.common.json);
    let home = match store(duplicate, interrupt, &output).await? {
        Ok(home) => home,
        Err(ending) => {
            ending.say(&output, Purpose::Clone);
            return Ok(ending.code().into());
        }
    };
    let copies = start_all(duplicate, home.path(), interrupt).await;
    // Whoever still reads pages from it has it open.
    home.remove()?;
    copies
}

/// The image that copies are made of. The tree runs again when it is whole.
async fn store(
    duplicate: &Duplicate,
    interrupt: &Arc<Interrupt>,
    output: &Output,
) -> Result<Result<Home, Ending>> {
    let directory = home::path(&duplicate.state.state, &attempt::new_id()?.to_string());
    let original = Dump::of_original(duplicate, &directory);
    let dumped = match dump::store(original, Arc::clone(interrupt)).await? {
        Ok(dumped) => dumped,
        Err(ending) => return Ok(Err(ending)),
    };
    let still_ms = dumped.stood_still.as_secs_f64() * 1000.0;
    output.text(&format!("Process {} stood still for {still_ms:.1} ms and runs.", duplicate.pid));
    Ok(Ok(Home::take_over(directory)?))
}

async fn start_all(
    duplicate: &Duplicate,
    directory: &Path,
    interrupt: &Interrupt,
) -> Result<ExitCode> {
    let output = Output::new(duplicate.common.json);
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
