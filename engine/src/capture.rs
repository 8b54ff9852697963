//! What a frozen tree is, beyond its memory: read, never changed, because the source may yet keep
//! its processes.

mod memory_fields;
mod statuses;
mod threads;

use self::statuses::Statuses;
use crate::args;
use crate::aspects::{self, Scope, Subject};
use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::freeze::Frozen;
use crate::image::ProcessImage;
use crate::memory::mapping::Mapping;
use crate::puppet::{Puppet, Steered, find_syscall, free_address};
use crate::tracee::OnOurDeath;

/// Captures one frozen process with its threads. `mappings` are those it has now.
pub(crate) fn process(frozen: &Frozen, mappings: &[Mapping]) -> Result<ProcessImage, Error> {
    let process = &frozen.process;
    if frozen.threads.is_empty() {
        return Ok(zombie(frozen));
    }
    // The leader may have ended before the others; any thread speaks for the process.
    let spokesman = &frozen.threads[0];
    let statuses = Statuses::read(&frozen.threads)?;
    let syscall_at = find_syscall(process.pid)?;
    let steered = Steered::begin(spokesman)?;
    let arena_at = arena_address(process.pid, mappings)?;
    let puppet = Puppet::open(&steered, arena_at, syscall_at, OnOurDeath::Runs)?;
    let captured = with_puppet(frozen, &statuses, &puppet, &steered);
    // Also when something failed: no mapping of ours stays behind in somebody's program.
    puppet.close(&steered, syscall_at)?;
    steered.end()?;
    captured
}

fn with_puppet(
    frozen: &Frozen,
    statuses: &Statuses,
    puppet: &Puppet,
    steered: &Steered<'_>,
) -> Result<ProcessImage, Error> {
    let process = &frozen.process;
    let status = statuses.of(steered.thread());
    let subject = Subject { pid: process.pid, tid: steered.thread().tid(), status };
    let mut batch = Batch::new();
    let brk = batch.try_call(libc::SYS_brk, args![0]);
    let asked = aspects::ask_all(Scope::Process, &subject, &mut batch);
    let answers = puppet.run(steered, &batch)?;
    let threads = threads::capture(frozen, statuses, puppet, steered)?;
    Ok(ProcessImage {
        pid: process.pid,
        is_stopped: steered.thread().is_group_stopped(),
        memory: Some(memory_fields::capture(process, answers.raw(brk).cast_unsigned())?),
        aspects: aspects::read_all(asked, &subject, &answers)?,
        threads,
        pending_signals: owned(steered.thread().queued_signals(true)?),
        ..ProcessImage::default()
    })
}

fn zombie(frozen: &Frozen) -> ProcessImage {
    ProcessImage {
        pid: frozen.process.pid,
        is_zombie: true,
        exit_status: frozen.process.stat.exit_code.unwrap_or(0),
        zombie_name: frozen.process.stat.comm.clone(),
        ..ProcessImage::default()
    }
}

fn owned<const N: usize>(infos: Vec<[u8; N]>) -> Vec<Vec<u8>> {
    infos.into_iter().map(|info| info.to_vec()).collect()
}

fn arena_address(pid: i32, mappings: &[Mapping]) -> Result<u64, Error> {
    let taken: Vec<(u64, u64)> = mappings.iter().map(|m| (m.start, m.end)).collect();
    free_address(&taken).ok_or_else(|| {
        let object = Object::Process { pid };
        Error::invalid("find room in", object, "its mappings leave none")
    })
}
