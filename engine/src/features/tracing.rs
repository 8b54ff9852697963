//! Stopping a thread, asking it and changing it: ptrace(2).

use super::{
    CHECKPOINT_RESTORE, EVERYTHING, Feature, NEWER_KERNEL, Need, PUTTING_TOGETHER, Permission,
    SYS_ADMIN, SYS_PTRACE, TAKING_APART, must,
};
use crate::error::Error;
use crate::sys::process::thread_signal;
use crate::sys::ptrace;
use crate::sys::trial::Trial;
use crate::tracee::{OnOurDeath, Outcome, Running, Stopped};
use std::io;
use std::time::Duration;

const PTRACE: Permission = Permission::of(SYS_PTRACE).and("kernel.yama.ptrace_scope");

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        name: "PTRACE_SEIZE",
        since: "3.4",
        need: EVERYTHING,
        loss: "No program can be stopped, and none can be built.",
        advice: NEWER_KERNEL,
        permission: PTRACE,
        probe: || stopped(|thread| thread.registers().map(drop)),
    },
    Feature {
        name: "NT_X86_XSTATE",
        since: "2.6.35",
        need: EVERYTHING,
        loss: "The vector registers of a program cannot be read and set.",
        advice: "Use a kernel and a processor with XSAVE (no `noxsave` on the kernel's command \
                 line).",
        permission: PTRACE,
        probe: || stopped(|thread| thread.set_xstate(&thread.xstate()?)),
    },
    Feature {
        name: "PTRACE_SETSIGMASK",
        since: "3.11",
        need: EVERYTHING,
        loss: "Signals cannot be kept from a thread while it is asked, nor its mask be set.",
        advice: NEWER_KERNEL,
        permission: PTRACE,
        probe: || {
            const SOME: u64 = 1 << 9 | 1 << 33;
            stopped(|thread| {
                thread.set_signal_mask(SOME)?;
                thread.signal_mask()
            })
            .and_then(|mask| must(mask == SOME))
        },
    },
    Feature {
        name: "PTRACE_PEEKSIGINFO",
        since: "3.10",
        need: TAKING_APART,
        loss: "Signals that wait for a program cannot be seen, and would be lost.",
        advice: NEWER_KERNEL,
        permission: PTRACE,
        probe: || stopped(pending).and_then(|signals| must(signals == 1)),
    },
    Feature {
        name: "PTRACE_GET_RSEQ_CONFIGURATION",
        since: "5.13",
        need: Need::Useful,
        loss: "Restartable sequences of a program are not registered again where it goes on; and \
               where our own C library has registered some, no program can be built here.",
        advice: "Use a kernel of that version or newer, with CONFIG_RSEQ.",
        permission: PTRACE,
        probe: rseq,
    },
    Feature {
        name: "PTRACE_O_EXITKILL",
        since: "3.8",
        need: PUTTING_TOGETHER,
        loss: "A program that is not complete would run if we are killed.",
        advice: NEWER_KERNEL,
        permission: PTRACE,
        probe: || seized_with(libc::PTRACE_O_EXITKILL),
    },
    Feature {
        name: "PTRACE_O_SUSPEND_SECCOMP",
        since: "4.3",
        need: Need::Useful,
        loss: "A program that confines itself with seccomp(2) while it is copied may be killed by \
               it.",
        advice: "Use a kernel with CONFIG_CHECKPOINT_RESTORE and CONFIG_SECCOMP_FILTER.",
        permission: Permission::of(SYS_ADMIN),
        probe: || seized_with(PTRACE_O_SUSPEND_SECCOMP),
    },
    Feature {
        name: "PR_GET_TID_ADDRESS",
        since: "3.5",
        need: TAKING_APART,
        loss: "Where a thread's end is awaited cannot be seen: pthread_join(3) would wait for \
               ever.",
        advice: CHECKPOINT_RESTORE,
        permission: Permission::FREE,
        probe: || crate::sys::prctl::thread_id_address().map(drop),
    },
];

const PTRACE_O_SUSPEND_SECCOMP: i32 = 1 << 21;
/// A child that does nothing stops at once, unless the host is very busy.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Asks a child of ours that stands still.
fn stopped<T>(ask: impl FnOnce(&Stopped) -> Result<T, Error>) -> io::Result<T> {
    let child = Trial::start()?;
    let asked = stop(&child).and_then(|thread| ask(&thread));
    asked.map_err(|error| error.source)
}

fn stop(child: &Trial) -> Result<Stopped, Error> {
    let running = Running::seize(child.pid(), child.pid(), OnOurDeath::Runs)?;
    let Outcome::Alive(running) = running else { return Err(died()) };
    match running.stop(STOP_WAIT)? {
        Outcome::Alive(thread) => Ok(thread),
        Outcome::Gone => Err(died()),
    }
}

fn died() -> Error {
    Error::invalid("stop", crate::error::Object::Host, "a process that is traced dies of it")
}

fn pending(thread: &Stopped) -> Result<usize, Error> {
    let sent = thread_signal(thread.pid(), thread.tid(), libc::SIGURG);
    sent.map_err(|source| Error::new("send a signal to", thread.object(), source))?;
    Ok(thread.queued_signals(false)?.len())
}

/// The engine itself takes a kernel without it for one where no program has any.
fn rseq() -> io::Result<()> {
    let child = Trial::start()?;
    stop(&child).map_err(|error| error.source)?;
    ptrace::rseq_configuration(child.pid()).map(drop)
}

/// An option that the kernel does not know is EINVAL.
fn seized_with(option: i32) -> io::Result<()> {
    let child = Trial::start()?;
    ptrace::seize(child.pid(), option)
}
