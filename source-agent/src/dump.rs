//! `migrate dump`: a running tree into a directory, by the same rounds and the same freeze as to
//! another host.

mod course;
mod files;

use crate::claim::Claim;
use crate::cli::{Dump, Moving};
use crate::codec::Compress;
use crate::complaint::only_root;
use crate::ending::{Ending, Purpose};
use crate::inspection::{self, Looked};
use crate::interrupt::Interrupt;
use crate::output::Output;
use anyhow::Result;
use course::Course;
pub(crate) use course::Dumped;
use engine::image::{Manner, Writer};
use engine::inventory::Counting;
use files::Files;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

pub(crate) async fn run(dump: Dump) -> Result<ExitCode> {
    if let Err(complaint) = only_root("dump a process") {
        return Ok(complaint.say());
    }
    let (pid, directory, output) = (dump.pid, dump.directory.clone(), Output::new(dump.json));
    Ok(match store(dump, interrupt()?).await? {
        Ok(dumped) => {
            dumped.tell(pid, &directory, &output);
            ExitCode::SUCCESS
        }
        Err(ending) => {
            ending.say(&output, Purpose::Dump);
            ending.code().into()
        }
    })
}

/// What our own signals raise.
pub(crate) fn interrupt() -> io::Result<Arc<Interrupt>> {
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(&interrupt)?;
    Ok(interrupt)
}

pub(crate) async fn store(dump: Dump, interrupt: Arc<Interrupt>) -> Result<Result<Dumped, Ending>> {
    // One thread from the beginning to the end: ptrace(2) answers only that.
    Ok(spawn_blocking(move || perform(dump, &interrupt)).await?)
}

fn perform(dump: Dump, interrupt: &Interrupt) -> Result<Dumped, Ending> {
    let _claim = Claim::on(dump.pid)?;
    let counting = if dump.pre_dump > 1 { Counting::Once } else { Counting::InEach };
    let looked = inspection::look(dump.pid, dump.rules.into(), counting, Moving::default())?;
    let Looked { outcome, notes } = looked;
    let inspection = outcome.map_err(Ending::Refused)?;
    let files = Files::named_by(&inspection, dump.file_bytes_max())?;
    let compress = dump.compress != Compress::None;
    let manner = Manner {
        compress,
        parent: dump.parent.clone(),
        recipients: dump.seal.recipients()?,
        identities: dump.opening.identities()?,
    };
    let writer = Writer::create(&dump.directory, &manner)?;
    let course = Course::begin(&dump, &inspection, files, interrupt)?;
    let mut dumped = course.run(writer, dump.afterwards())?;
    dumped.notes = notes.iter().map(ToString::to_string).collect();
    Ok(dumped)
}

fn watch_signals(interrupt: &Arc<Interrupt>) -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, interrupt) = (signal(kind)?, Arc::clone(interrupt));
        tokio::spawn(async move {
            signal.recv().await;
            interrupt.raise();
        });
    }
    Ok(())
}
