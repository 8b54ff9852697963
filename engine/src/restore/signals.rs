//! Signals that wait to be delivered.

use crate::args;
use crate::aspects::{Queue, Subject, restore_pending_signals};
use crate::batch::Batch;
use crate::error::Error;
use crate::image::ProcessImage;
use crate::puppet::Steered;
use crate::stage::Stub;

/// More signals than building a tree can have sent to one stub: one per child that ended.
const STRAY_MAX: usize = 64;

/// Queues what the source had queued.
pub(super) fn restore(stub: &Stub, process: &ProcessImage) -> Result<(), Error> {
    let subject = Subject { pid: process.pid, tid: process.pid, status: "" };
    let mut batch = Batch::new();
    restore_pending_signals(Queue::Process, &process.pending_signals, &subject, &mut batch)?;
    stub.run(&batch).map(drop)
}

/// Takes away what building the tree has sent. While the process has no timers yet: what these send
/// is the program's.
pub(super) fn take_strays(stub: &Stub) -> Result<(), Error> {
    let steered = Steered::begin(&stub.threads[0])?;
    let taken = take_strays_steered(stub, &steered);
    steered.end()?;
    taken
}

fn take_strays_steered(stub: &Stub, steered: &Steered<'_>) -> Result<(), Error> {
    loop {
        let mut batch = Batch::new();
        let every = batch.bytes(&u64::MAX.to_ne_bytes());
        let no_wait = batch.bytes(&[0; 16]);
        let calls: Vec<_> = (0..STRAY_MAX)
            .map(|_| batch.try_call(libc::SYS_rt_sigtimedwait, args![every, 0, no_wait, 8]))
            .collect();
        let answers = stub.puppet.run(steered, &batch)?;
        if calls.iter().any(|&call| answers.raw(call) < 0) {
            return Ok(());
        }
    }
}
