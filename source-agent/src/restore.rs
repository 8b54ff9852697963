//! `migrate restore`: a tree from a directory, by the same staging as from another host.

pub(crate) mod admission;
pub(crate) mod another;
mod course;
mod files;
mod foreground;
mod original;
pub(crate) mod seclusion;

use crate::cli::{Hold, Restore};
use crate::complaint::only_root;
use crate::ending::{Ending, Purpose};
use crate::events::Event;
use crate::output::Output;
use crate::signals::Signals;
use admission::{Admission, Anything};
use anyhow::{Context as _, Result};
use course::Course;
pub(crate) use course::Running;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// A restored tree has no other page server to wait for.
const NOBODY_COMES: Duration = Duration::ZERO;

pub(crate) async fn run(restore: Restore) -> Result<ExitCode> {
    if let Err(complaint) = only_root("restore a process") {
        return Ok(complaint.say());
    }
    // Somebody has to bring the pages, or to be the first in the namespace.
    let needs_another = restore.pid_namespace || (restore.detach && restore.lazy);
    match needs_another && !restore.is_for_another {
        true => another::run(restore).await,
        false => here(restore).await,
    }
}

async fn here(restore: Restore) -> Result<ExitCode> {
    let signals = restore.stays().then(Signals::watch).transpose()?;
    let (output, is_for_another) = (Output::new(restore.json), restore.is_for_another);
    let running = match bring_back(restore, Arc::new(Anything)).await? {
        Ok(running) => running,
        Err(ending) => return Ok(tell(&ending, &output)),
    };
    for note in &running.notes {
        output.event(&Event::Note { text: note.clone() });
        output.text(&format!("Note: {note}"));
    }
    match is_for_another {
        true => another::say_that_it_runs(&running),
        false => running.summary().tell(&output),
    }
    stay(running, signals, || ()).await
}

/// Until it runs.
pub(crate) async fn bring_back(
    restore: Restore,
    admission: Arc<dyn Admission>,
) -> Result<Result<Running, Ending>> {
    let restored = spawn_blocking(move || {
        if restore.stays() {
            foreground::adopt_orphans()?;
        }
        Course::begin(&restore, &*admission)?.run(&restore, &*admission)
    });
    Ok(restored.await?)
}

/// As long as it lacks pages; with `signals`, until it has ended. `whole` hears when it lacks none.
pub(crate) async fn stay(
    running: Running,
    signals: Option<Signals>,
    whole: impl FnOnce(),
) -> Result<ExitCode> {
    let root = running.pid;
    let mut serving = spawn_blocking(move || running.serve());
    let Some(signals) = signals else {
        return serving.await?.map(|()| ExitCode::SUCCESS).context(PAGES);
    };
    let mut ending = pin!(foreground::pass_on_until_it_ends(signals, root));
    tokio::select! {
        // Where it fails we end, and the holder ends the tree: nothing else may bring pages.
        served = &mut serving => {
            served?.context(PAGES)?;
            whole();
            ending.await
        }
        code = &mut ending => {
            serving.await?.context(PAGES)?;
            code
        }
    }
}

const PAGES: &str = "bring the rest of its pages";

fn tell(ending: &Ending, output: &Output) -> ExitCode {
    ending.say(output, Purpose::Restore);
    ending.code().into()
}

/// The holder's own process.
pub(crate) fn hold(hold: &Hold) -> Result<ExitCode> {
    engine::memory::holder::run(&hold.socket, NOBODY_COMES).context("hold a tree's memory")?;
    Ok(ExitCode::SUCCESS)
}
