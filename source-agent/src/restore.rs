//! `migrate restore`: a tree from a directory, by the same staging as from another host.

mod background;
mod course;
mod foreground;

use crate::cli::{Hold, Restore};
use crate::complaint::only_root;
use crate::ending::{Ending, Purpose};
use crate::output::{Output, print};
use anyhow::{Context as _, Result};
use course::Course;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// A restored tree has no other page server to wait for.
const NOBODY_COMES: Duration = Duration::ZERO;

pub(crate) async fn run(restore: Restore) -> Result<ExitCode> {
    if let Err(complaint) = only_root("restore a process") {
        return Ok(complaint.say());
    }
    if restore.detach && restore.lazy {
        return background::start(&restore).context("start who brings the pages");
    }
    let is_foreground = !restore.detach && !restore.says_when_it_runs;
    let signals = is_foreground.then(foreground::Signals::watch).transpose()?;
    let output = Output::new(restore.json);
    let restored = spawn_blocking(move || {
        if is_foreground {
            foreground::adopt_orphans()?;
        }
        let says = restore.says_when_it_runs;
        let running = Course::begin(&restore)?.run(&restore)?;
        Ok((running, says))
    });
    let (running, says) = match restored.await? {
        Ok(restored) => restored,
        Err(ending) => return Ok(tell(&ending, &output)),
    };
    running.tell(&output);
    if says {
        print(background::IT_RUNS);
    }
    let root = running.pid;
    let serving = spawn_blocking(move || running.serve());
    match signals {
        Some(signals) => {
            let code = signals.pass_on_until_it_ends(root).await?;
            serving.await??;
            Ok(code)
        }
        None => serving.await?.map(|()| ExitCode::SUCCESS).context("bring the rest of its pages"),
    }
}

fn tell(ending: &Ending, output: &Output) -> ExitCode {
    ending.say(output, Purpose::Restore);
    ending.code().into()
}

/// The holder's own process.
pub(crate) fn hold(hold: &Hold) -> Result<ExitCode> {
    engine::memory::holder::run(&hold.socket, NOBODY_COMES).context("hold a tree's memory")?;
    Ok(ExitCode::SUCCESS)
}
