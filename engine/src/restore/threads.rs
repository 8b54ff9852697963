//! Per-thread state: aspects, rseq, and last of all the registers.

use super::connecting;
use crate::arch::x86_64::interrupted;
use crate::aspects::{self, Queue, Scope, Subject, restore_pending_signals};
use crate::batch::Batch;
use crate::error::Error;
use crate::image::{ProcessImage, ThreadImage};
use crate::puppet::{Errand, Steered};
use crate::stage::Stub;
use crate::tracee::Stopped;
use std::collections::HashMap;

pub(super) fn restore(stub: &Stub, process: &ProcessImage) -> Result<(), Error> {
    let staged: HashMap<i32, &Stopped> =
        stub.threads.iter().map(|thread| (thread.tid(), thread)).collect();
    let of = |image: &ThreadImage| {
        *staged.get(&image.tid).expect("checked: every thread of the image was staged")
    };
    let errands = process.threads.iter().map(|image| {
        let batch = aspects_of(stub, image)?;
        Ok(Errand { steered: Steered::begin(of(image))?, batch, about: image })
    });
    stub.puppet.run_each(errands, |image, steered, _| {
        steered.leave();
        let subject = Subject { pid: stub.pid, tid: image.tid, status: "" };
        aspects::restore_outside_all(&image.aspects, Scope::Thread, &subject)
    })?;
    for image in &process.threads {
        set_registers(of(image), stub.pid, image)?;
    }
    Ok(())
}

fn aspects_of(stub: &Stub, image: &ThreadImage) -> Result<Batch, Error> {
    let subject = Subject { pid: stub.pid, tid: image.tid, status: "" };
    let mut batch = Batch::new();
    // The kernel writes to the rseq area at once: its page is among the eager ones.
    if let Some(rseq) = &image.rseq {
        aspects::restore_rseq(rseq, &subject, &mut batch)?;
    }
    restore_pending_signals(Queue::Thread, &image.pending_signals, &subject, &mut batch)?;
    aspects::restore_all(&image.aspects, Scope::Thread, &subject, &mut batch)?;
    Ok(batch)
}

fn set_registers(thread: &Stopped, pid: i32, image: &ThreadImage) -> Result<(), Error> {
    thread.set_xstate(&image.whole_xstate()?)?;
    let registers = image.registers()?;
    let result = interrupted::connects(&registers).and_then(|fd| connecting::result(pid, fd));
    let registers = match result {
        Some(result) => interrupted::ended_with(&registers, result),
        None => interrupted::on_a_new_task(&registers),
    };
    thread.set_registers(&registers)?;
    thread.set_signal_mask(image.signal_mask)
}
