//! Per-thread state: aspects, rseq, and last of all the registers.

use crate::arch::x86_64::interrupted;
use crate::aspects::{self, Queue, Scope, Subject, restore_pending_signals};
use crate::batch::Batch;
use crate::error::Error;
use crate::image::{ProcessImage, ThreadImage};
use crate::puppet::Steered;
use crate::stage::Stub;
use crate::tracee::Stopped;

pub(super) fn restore(stub: &Stub, process: &ProcessImage) -> Result<(), Error> {
    for image in &process.threads {
        let thread = stub.threads.iter().find(|thread| thread.tid() == image.tid);
        let thread = thread.expect("checked: every thread of the image was staged");
        restore_aspects(stub, thread, image)?;
    }
    for image in &process.threads {
        let thread = stub.threads.iter().find(|thread| thread.tid() == image.tid);
        let thread = thread.expect("checked: every thread of the image was staged");
        set_registers(thread, image, signal_waits(process, image))?;
    }
    Ok(())
}

fn restore_aspects(stub: &Stub, thread: &Stopped, image: &ThreadImage) -> Result<(), Error> {
    let subject = Subject { pid: stub.pid, tid: image.tid, status: "" };
    let mut batch = Batch::new();
    // The kernel writes to the rseq area at once: its page is among the eager ones.
    if let Some(rseq) = &image.rseq {
        aspects::restore_rseq(rseq, &subject, &mut batch)?;
    }
    restore_pending_signals(Queue::Thread, &image.pending_signals, &subject, &mut batch)?;
    aspects::restore_all(&image.aspects, Scope::Thread, &subject, &mut batch)?;
    let steered = Steered::begin(thread)?;
    let ran = stub.puppet.run(&steered, &batch);
    steered.end()?;
    ran?;
    aspects::restore_outside_all(&image.aspects, Scope::Thread, &subject)
}

fn set_registers(thread: &Stopped, image: &ThreadImage, signal_waits: bool) -> Result<(), Error> {
    thread.set_xstate(&image.whole_xstate()?)?;
    let registers = interrupted::on_a_new_task(&image.registers()?, signal_waits);
    thread.set_registers(&registers)?;
    thread.set_signal_mask(image.signal_mask)
}

/// Whether a signal waits that the thread does not block.
fn signal_waits(process: &ProcessImage, image: &ThreadImage) -> bool {
    let queued = process.pending_signals.iter().chain(&image.pending_signals);
    queued
        .map(|info| crate::freeze::signal_number(info))
        .any(|number| (1..=64).contains(&number) && image.signal_mask & (1 << (number - 1)) == 0)
}
