//! Per-thread state. Five hundred threads are captured inside one freeze, so each costs one round
//! trip for everything that it must say itself, and a few ptrace calls.

use super::{Statuses, owned};
use crate::arch::x86_64::interrupted::{self, NAMED_CALL_BYTES};
use crate::aspects::{self, RseqImage, Scope, Subject};
use crate::batch::Batch;
use crate::error::Error;
use crate::freeze::Frozen;
use crate::image::ThreadImage;
use crate::puppet::{Puppet, Steered};
use crate::tracee::Stopped;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

pub(super) fn capture(
    frozen: &Frozen,
    statuses: &Statuses,
    puppet: &Puppet,
    spokesman: &Steered<'_>,
) -> Result<Vec<ThreadImage>, Error> {
    let mut images = Vec::with_capacity(frozen.threads.len());
    for thread in &frozen.threads {
        if thread.tid() == spokesman.thread().tid() {
            images.push(capture_one(thread, statuses, puppet, spokesman)?);
            continue;
        }
        let steered = Steered::begin(thread)?;
        let image = capture_one(thread, statuses, puppet, &steered);
        steered.end()?;
        images.push(image?);
    }
    Ok(images)
}

fn capture_one(
    thread: &Stopped,
    statuses: &Statuses,
    puppet: &Puppet,
    steered: &Steered<'_>,
) -> Result<ThreadImage, Error> {
    let status = statuses.of(thread.tid())?;
    let subject = Subject { pid: thread.pid(), tid: thread.tid(), status: &status };
    let mut batch = Batch::new();
    let asked = aspects::ask_all(Scope::Thread, &subject, &mut batch);
    let answers = puppet.run(steered, &batch)?;
    let rseq = thread.rseq()?;
    let (xstate, xstate_bytes) = ThreadImage::trimmed(steered.xstate()?.to_vec());
    Ok(ThreadImage {
        tid: thread.tid(),
        registers: ThreadImage::words_of(&interrupted::by_name(steered.registers(), |at| {
            code(thread.pid(), at)
        })),
        xstate,
        xstate_bytes,
        signal_mask: steered.signal_mask(),
        rseq: (rseq.address != 0).then_some(RseqImage {
            pointer: rseq.address,
            size_bytes: rseq.size,
            signature: rseq.signature,
            flags: rseq.flags,
        }),
        aspects: aspects::read_all(asked, &subject, &answers)?,
        pending_signals: owned(thread.queued_signals(false)?),
    })
}

fn code(pid: i32, at: u64) -> Option<[u8; NAMED_CALL_BYTES]> {
    let mut code = [0; NAMED_CALL_BYTES];
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut code, at).ok()?;
    Some(code)
}
