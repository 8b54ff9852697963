//! The threads of a stub: born stopped, with their final ids.

use super::Stub;
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::puppet::Steered;
use crate::sys::process::CloneArguments;
use crate::sys::ptrace::{self, Event};
use crate::tracee::{CALL_WAIT, Stopped};
use std::collections::BTreeSet;

const CLONE_PTRACE: i32 = 0x2000;

/// Makes the threads that are missing and ends those that the source has no more.
pub(super) fn apply(stub: &mut Stub, tids: &[i32]) -> Result<(), Error> {
    let wanted: BTreeSet<i32> = tids.iter().copied().collect();
    let surplus = |thread: &Stopped| thread.tid() != stub.pid && !wanted.contains(&thread.tid());
    let (gone, kept) = std::mem::take(&mut stub.threads).into_iter().partition(surplus);
    stub.threads = kept;
    for thread in gone {
        end(stub, &thread)?;
    }
    let present: BTreeSet<i32> = stub.threads.iter().map(Stopped::tid).collect();
    let missing: Vec<i32> =
        wanted.difference(&present).copied().filter(|&tid| tid != stub.pid).collect();
    for chunk in missing.chunks(500) {
        make(stub, chunk)?;
    }
    Ok(())
}

fn make(stub: &mut Stub, tids: &[i32]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for &tid in tids {
        clone_thread(stub.pid, tid, &mut batch);
    }
    stub.run(&batch)?;
    for &tid in tids {
        stub.threads.push(Stopped::born(stub.pid, tid)?);
    }
    Ok(())
}

fn clone_thread(pid: i32, tid: i32, batch: &mut Batch) {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | CLONE_PTRACE;
    let arguments = CloneArguments {
        flags: u64::from(flags.cast_unsigned()),
        set_tid_size: 1,
        ..Default::default()
    };
    let id = batch.bytes(&tid.to_ne_bytes());
    let arguments = batch.bytes(&arguments.bytes());
    batch.pointer(arguments, CloneArguments::SET_TID_OFFSET, id);
    let object = Object::Thread { pid, tid };
    let size = size_of::<CloneArguments>();
    batch.call("make", &object, libc::SYS_clone3, args![arguments, size]);
}

/// Makes a thread exit by itself: killing it would kill its process.
fn end(stub: &Stub, thread: &Stopped) -> Result<(), Error> {
    let steered = Steered::begin(thread)?;
    let at = stub.puppet.syscall_at();
    let exiting =
        crate::arch::x86_64::blob::calling(steered.registers(), at, libc::SYS_exit, [0; 6]);
    thread.set_registers(&exiting)?;
    std::mem::forget(steered);
    thread.run_to(|tid| ptrace::cont(tid, 0), |event| event == Event::Gone, CALL_WAIT)
}
