//! Zombies: processes that are over, and whose parents have not asked yet.

use crate::args;
use crate::batch::Batch;
use crate::error::{Error, OnObject as _};
use crate::image::{ProcessImage, TreeImage};
use crate::puppet::Steered;
use crate::stage::{Stage, Stub};
use crate::sys::ptrace::{self, Event};
use crate::tracee::CALL_WAIT;

/// Lets the stubs that stand for zombies die as the originals did. The signals that this sends
/// to their parents are taken away later, with the others (`signals::take_strays`). Before a parent
/// has its signal actions: with SIGCHLD ignored, a child that dies leaves no zombie.
pub(super) fn make_zombies(stage: &mut Stage, image: &TreeImage) -> Result<(), Error> {
    for process in image.processes.iter().filter(|process| process.is_zombie) {
        if let Some(stub) = stage.stubs.remove(&process.pid) {
            die(&stub, process)?;
        }
    }
    Ok(())
}

fn die(stub: &Stub, process: &ProcessImage) -> Result<(), Error> {
    let thread = &stub.threads[0];
    let mut batch = Batch::new();
    let not_dumpable = args![libc::PR_SET_DUMPABLE, 0];
    batch.call("keep from dumping core", &stub.object(), libc::SYS_prctl, not_dumpable);
    let name = batch.string(&process.zombie_name);
    batch.try_call(libc::SYS_prctl, args![libc::PR_SET_NAME, name]);
    stub.run(&batch)?;
    let signal = process.exit_status & 0x7f;
    if signal != 0 {
        return die_of(stub, signal);
    }
    let steered = Steered::begin(thread)?;
    let code = u64::from(((process.exit_status >> 8) & 0xff).unsigned_abs());
    let at = stub.puppet.syscall_at();
    let arguments = [code, 0, 0, 0, 0, 0];
    let registers = crate::arch::x86_64::blob::calling(
        steered.registers(),
        at,
        libc::SYS_exit_group,
        arguments,
    );
    thread.set_registers(&registers)?;
    // There is nothing left to give back.
    std::mem::forget(steered);
    thread.run_to(|tid| ptrace::cont(tid, 0), |event| event == Event::Gone, CALL_WAIT)
}

/// With the signal's action at its default, and the signal not blocked.
fn die_of(stub: &Stub, signal: i32) -> Result<(), Error> {
    let mut batch = Batch::new();
    let action = batch.bytes(&[0; 32]);
    batch.try_call(libc::SYS_rt_sigaction, args![signal, action, 0, 8]);
    stub.run(&batch)?;
    let thread = &stub.threads[0];
    thread.set_signal_mask(0)?;
    let object = || stub.object();
    crate::sys::process::thread_signal(stub.pid, stub.pid, signal).on("end", object)?;
    loop {
        match ptrace::wait_after(thread.tid(), signal).on("end", object)? {
            Event::Gone => return Ok(()),
            _ => continue,
        }
    }
}
