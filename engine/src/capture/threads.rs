//! Per-thread state. Five hundred threads are captured inside one freeze, so each is sent once for
//! everything that it must say itself, while others are on the way, and costs a few ptrace calls.

use super::{Statuses, owned};
use crate::arch::x86_64::interrupted::{self, NAMED_CALL_BYTES};
use crate::aspects::{self, Asked, RseqImage, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::Error;
use crate::freeze::Frozen;
use crate::image::ThreadImage;
use crate::puppet::{Errand, Puppet, Steered};
use crate::tracee::Stopped;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

pub(super) fn capture(
    frozen: &Frozen,
    statuses: &Statuses,
    puppet: &Puppet,
    spokesman: &Steered<'_>,
) -> Result<Vec<ThreadImage>, Error> {
    let memory = Memory::of(frozen.process.pid);
    let mut images = Vec::with_capacity(frozen.threads.len());
    let asking = Asking::of(spokesman.thread(), statuses);
    let (asked, batch) = asking.ask();
    let answers = puppet.run(spokesman, &batch)?;
    images.push(image(spokesman, &asking, asked, &answers, &memory)?);
    let others = frozen.threads.iter().filter(|thread| thread.tid() != spokesman.thread().tid());
    let errands = others.map(|thread| {
        let asking = Asking::of(thread, statuses);
        let (asked, batch) = asking.ask();
        Ok(Errand { steered: Steered::begin(thread)?, batch, about: (asking, asked) })
    });
    puppet.run_each(errands, |(asking, asked), steered, answers| {
        images.push(image(&steered, &asking, asked, &answers, &memory)?);
        steered.end()
    })?;
    Ok(images)
}

/// What one thread is asked about.
struct Asking<'a> {
    thread: &'a Stopped,
    status: &'a str,
}

impl<'a> Asking<'a> {
    fn of(thread: &'a Stopped, statuses: &'a Statuses) -> Self {
        Self { thread, status: statuses.of(thread) }
    }

    fn subject(&self) -> Subject<'_> {
        Subject { pid: self.thread.pid(), tid: self.thread.tid(), status: self.status }
    }

    fn ask(&self) -> (Asked, Batch) {
        let mut batch = Batch::new();
        (aspects::ask_all(Scope::Thread, &self.subject(), &mut batch), batch)
    }
}

fn image(
    steered: &Steered<'_>,
    asking: &Asking<'_>,
    asked: Asked,
    answers: &Answers,
    memory: &Memory,
) -> Result<ThreadImage, Error> {
    let thread = asking.thread;
    let rseq = thread.rseq()?;
    let (xstate, xstate_bytes) = ThreadImage::trimmed(steered.xstate()?.to_vec());
    let registers = interrupted::by_name(steered.registers(), |at| memory.code(at));
    Ok(ThreadImage {
        tid: thread.tid(),
        registers: ThreadImage::words_of(&registers),
        xstate,
        xstate_bytes,
        signal_mask: steered.signal_mask(),
        rseq: (rseq.address != 0).then_some(RseqImage {
            pointer: rseq.address,
            size_bytes: rseq.size,
            signature: rseq.signature,
            flags: rseq.flags,
        }),
        aspects: aspects::read_all(asked, &asking.subject(), answers)?,
        pending_signals: owned(thread.queued_signals(false)?),
    })
}

/// A process's memory, opened once for all of its threads: nobody knows where their code lies.
struct Memory(Option<File>);

impl Memory {
    fn of(pid: i32) -> Self {
        Self(File::open(format!("/proc/{pid}/mem")).ok())
    }

    fn code(&self, at: u64) -> Option<[u8; NAMED_CALL_BYTES]> {
        let mut code = [0; NAMED_CALL_BYTES];
        self.0.as_ref()?.read_exact_at(&mut code, at).ok()?;
        Some(code)
    }
}
