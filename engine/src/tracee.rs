//! A thread of a traced process, in the state it is known to be in.

use crate::error::{Error, Object, OnObject as _};
use crate::freeze::signal_number;
use crate::sys::process::thread_signal;
use crate::sys::ptrace::{self, Event, PTRACE_EVENT_STOP, RseqConfiguration, SIGINFO_BYTES};
use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// How long one thread of a program may take to stop; the others of its tree stand still meanwhile.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(1);
/// How long its tree may stand still for a thread that the kernel keeps asleep.
const DEEP_SLEEP_WAIT: Duration = Duration::from_millis(20);
/// How long a thread that we steer may take for one call, or for one batch of them: a tree may be
/// standing still meanwhile. The longest that we make are waiting for a child of ours to die, and
/// unmapping gigabytes, which is a matter of a second.
pub(crate) const CALL_WAIT: Duration = Duration::from_secs(10);
const SPIN_WAIT: Duration = Duration::from_millis(1);
const POLL_PAUSE: Duration = Duration::from_micros(100);

pub type Registers = libc::user_regs_struct;

/// ptrace answers only the thread that attached, so a tracee stays on it.
type OnTracerThread = PhantomData<*const ()>;

/// Linux 4.3: a stopped thread's seccomp filters do not see what we make it do.
const PTRACE_O_SUSPEND_SECCOMP: i32 = 1 << 21;

/// What tracing means for the thread if we die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOurDeath {
    /// It runs on: it is somebody's program.
    Runs,
    /// It dies: it is a stub of ours that nobody decided on.
    Dies,
}

#[derive(Debug)]
pub struct Running {
    pid: i32,
    tid: i32,
    thread: OnTracerThread,
}

/// A thread that stands still until it is released.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    tid: i32,
    is_group_stopped: bool,
    /// Signals that came while we steered it and that cannot be blocked; sent again at release.
    held_back: RefCell<Vec<i32>>,
    /// What it blocks by itself, while all signals wait for one that is being taken away.
    own_mask: Cell<Option<u64>>,
    thread: OnTracerThread,
}

/// What became of a thread that was asked to stop.
#[derive(Debug)]
pub(crate) enum Stopping {
    Stopped(Stopped),
    Gone,
    /// It will stop when it wakes.
    NotYet(Running),
}

/// Death is a value: threads come and go while we look.
#[derive(Debug)]
pub enum Outcome<T> {
    Alive(T),
    Gone,
}

fn options(on_our_death: OnOurDeath, suspend_seccomp: bool) -> i32 {
    let mut options = libc::PTRACE_O_TRACESYSGOOD;
    if on_our_death == OnOurDeath::Dies {
        options |= libc::PTRACE_O_EXITKILL;
    }
    if suspend_seccomp {
        options |= PTRACE_O_SUSPEND_SECCOMP;
    }
    options
}

impl Running {
    /// Attaches without stopping it.
    pub fn seize(pid: i32, tid: i32, on_our_death: OnOurDeath) -> Result<Outcome<Self>, Error> {
        let plain = options(on_our_death, false);
        // Suspending seccomp is not allowed where we are under seccomp ourselves or lack
        // CAP_SYS_ADMIN, and is not built into every kernel.
        let seized =
            ptrace::seize(tid, options(on_our_death, true)).or_else(|_| ptrace::seize(tid, plain));
        match seized {
            Ok(()) => Ok(Outcome::Alive(Self { pid, tid, thread: PhantomData })),
            // A thread that is just ending cannot be attached to any more: EPERM.
            Err(_) if is_ending(pid, tid) => Ok(Outcome::Gone),
            Err(error) => Err(error).on("seize", || Object::Thread { pid, tid }),
        }
    }

    /// Asks it to stop; `wait_stopped` waits until it has. Asking all first and waiting after is
    /// three times faster than one by one.
    pub fn interrupt(&self) {
        // The only error is ESRCH, and then the wait says that it is gone.
        let _ = ptrace::interrupt(self.tid);
    }

    /// A thread in a sleep that nothing ends (a hung file system, a long vfork(2)) does not stop,
    /// and others must not stand still for it: that is an error after `patience`. It stays
    /// attached, running, until this thread of ours ends.
    pub fn wait_stopped(self, patience: Duration) -> Result<Outcome<Stopped>, Error> {
        match self.wait_while(|waited, _| waited < patience)? {
            Stopping::Stopped(stopped) => Ok(Outcome::Alive(stopped)),
            Stopping::Gone => Ok(Outcome::Gone),
            Stopping::NotYet(running) => Err(running.sleeps_too_deep()),
        }
    }

    /// Waits no longer than others of its tree can stand still for one that writes to a slow disk.
    pub(crate) fn wait_briefly(self) -> Result<Stopping, Error> {
        self.wait_while(|waited, thread| {
            waited < DEEP_SLEEP_WAIT || (waited < STOP_WAIT && !thread.is_in_deep_sleep())
        })
    }

    pub(crate) fn wait_until(self, end: Instant) -> Result<Stopping, Error> {
        self.wait_while(|_, _| Instant::now() < end)
    }

    fn wait_while(self, goes_on: impl Fn(Duration, &Self) -> bool) -> Result<Stopping, Error> {
        let object = || Object::Thread { pid: self.pid, tid: self.tid };
        let began = Instant::now();
        let is_group_stopped = loop {
            match self.next_event(began, &goes_on).on("stop", object)? {
                None => return Ok(Stopping::NotYet(self)),
                Some(Event::Ptrace(PTRACE_EVENT_STOP)) => break false,
                Some(Event::GroupStop(_)) => break true,
                Some(Event::Gone) => return Ok(Stopping::Gone),
                Some(Event::Signal(signal)) => {
                    // Stopped on its way to a signal. Let it be delivered: the interrupt is
                    // still pending and stops it before the handler's first instruction.
                    ptrace::cont(self.tid, signal).on("continue", object)?;
                }
                Some(Event::Ptrace(_) | Event::Syscall) => {
                    ptrace::cont(self.tid, 0).on("continue", object)?;
                }
            }
        };
        let stopped = Stopped::new(self.pid, self.tid);
        Ok(Stopping::Stopped(Stopped { is_group_stopped, ..stopped }))
    }

    /// Threads stop within microseconds, so at first this only lets others run.
    fn next_event(
        &self,
        began: Instant,
        goes_on: impl Fn(Duration, &Self) -> bool,
    ) -> io::Result<Option<Event>> {
        let patience = Instant::now() + SPIN_WAIT;
        loop {
            if let Some(event) = ptrace::poll(self.tid)? {
                return Ok(Some(event));
            }
            match Instant::now() {
                now if now < patience => std::thread::yield_now(),
                now if goes_on(now - began, self) => std::thread::sleep(POLL_PAUSE),
                _ => return Ok(None),
            }
        }
    }

    /// proc(5): the state that a thread is in while the kernel does for it what it will not break off.
    fn is_in_deep_sleep(&self) -> bool {
        let stat = std::fs::read(format!("/proc/{}/task/{}/stat", self.pid, self.tid));
        let after_name = |stat: &[u8]| stat.iter().rposition(|&byte| byte == b')');
        stat.is_ok_and(|stat| after_name(&stat).is_some_and(|at| stat.get(at + 2) == Some(&b'D')))
    }

    pub(crate) fn sleeps_too_deep(&self) -> Error {
        let why = "it is in a sleep that cannot be interrupted";
        let object = Object::Thread { pid: self.pid, tid: self.tid };
        Error::new("stop", object, io::Error::new(io::ErrorKind::TimedOut, why))
    }

    pub fn stop(self, patience: Duration) -> Result<Outcome<Stopped>, Error> {
        self.interrupt();
        self.wait_stopped(patience)
    }
}

impl Stopped {
    fn new(pid: i32, tid: i32) -> Self {
        Self {
            pid,
            tid,
            is_group_stopped: false,
            held_back: RefCell::default(),
            own_mask: Cell::default(),
            thread: PhantomData,
        }
    }

    /// A child or thread that was born traced (CLONE_PTRACE): waits for its birth stop.
    pub(crate) fn born(pid: i32, tid: i32) -> Result<Self, Error> {
        let object = || Object::Thread { pid, tid };
        match ptrace::wait_within(tid, STOP_WAIT).on("wait for", object)? {
            Event::Ptrace(PTRACE_EVENT_STOP) => Ok(Self::new(pid, tid)),
            other => Err(Error::invalid(
                "wait for the birth of",
                object(),
                format!("{other:?} instead of a stop"),
            )),
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Stopped by job control (SIGSTOP, SIGTSTP ...), before we came.
    pub fn is_group_stopped(&self) -> bool {
        self.is_group_stopped
    }

    pub fn object(&self) -> Object {
        Object::Thread { pid: self.pid, tid: self.tid }
    }

    pub fn registers(&self) -> Result<Registers, Error> {
        ptrace::registers(self.tid).on("read the registers of", || self.object())
    }

    pub fn set_registers(&self, registers: &Registers) -> Result<(), Error> {
        ptrace::set_registers(self.tid, registers).on("set the registers of", || self.object())
    }

    pub fn xstate(&self) -> Result<Vec<u8>, Error> {
        ptrace::xstate(self.tid).on("read the vector registers of", || self.object())
    }

    pub fn set_xstate(&self, bytes: &[u8]) -> Result<(), Error> {
        ptrace::set_xstate(self.tid, bytes).on("set the vector registers of", || self.object())
    }

    pub fn signal_mask(&self) -> Result<u64, Error> {
        ptrace::signal_mask(self.tid).on("read the signal mask of", || self.object())
    }

    pub fn set_signal_mask(&self, mask: u64) -> Result<(), Error> {
        ptrace::set_signal_mask(self.tid, mask).on("set the signal mask of", || self.object())
    }

    pub(crate) fn rseq(&self) -> Result<RseqConfiguration, Error> {
        match ptrace::rseq_configuration(self.tid) {
            // A kernel without it, or without rseq at all.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                Ok(RseqConfiguration::default())
            }
            other => other.on("read the rseq registration of", || self.object()),
        }
    }

    pub fn queued_signals(&self, shared: bool) -> Result<Vec<[u8; SIGINFO_BYTES]>, Error> {
        ptrace::queued_signals(self.tid, shared).on("read the queued signals of", || self.object())
    }

    pub fn set_on_our_death(&self, on_our_death: OnOurDeath) -> Result<(), Error> {
        ptrace::set_options(self.tid, options(on_our_death, false))
            .on("set the trace options of", || self.object())
    }

    /// Runs until it stops as wanted; stray signals and group stops on the way do not count.
    ///
    /// After `limit` it is stopped where it is, and the error is `TimedOut`: whoever steers it puts
    /// its registers back, and the call that did not end is no more.
    pub(crate) fn run_to(
        &self,
        resume: fn(i32) -> io::Result<()>,
        wanted: impl Fn(Event) -> bool,
        limit: Duration,
    ) -> Result<(), Error> {
        self.resume(resume)?;
        self.wait_to(resume, wanted, limit)
    }

    /// The first half of [`Self::run_to`]: it runs, and others can be sent on their way meanwhile.
    pub(crate) fn resume(&self, resume: fn(i32) -> io::Result<()>) -> Result<(), Error> {
        resume(self.tid).on("continue", || self.object())
    }

    /// The second half of [`Self::run_to`].
    pub(crate) fn wait_to(
        &self,
        resume: fn(i32) -> io::Result<()>,
        wanted: impl Fn(Event) -> bool,
        limit: Duration,
    ) -> Result<(), Error> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_within(left).on("wait for", || self.object())? {
                event if wanted(event) => return Ok(()),
                Event::Gone => {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH))
                        .on("steer", || self.object());
                }
                Event::Signal(signal) if is_fault(signal) => {
                    return Err(Error::invalid(
                        "steer",
                        self.object(),
                        format!("it stopped with signal {signal}"),
                    ));
                }
                // A SIGSTOP from outside, which cannot be blocked, or the signal that is left
                // unblocked for the end of a batch: it is sent again.
                Event::Signal(signal) => self.held_back.borrow_mut().push(signal),
                Event::Ptrace(_) | Event::GroupStop(_) | Event::Syscall => {}
            }
            self.resume(resume)?;
        }
    }

    fn next_within(&self, limit: Duration) -> io::Result<Event> {
        let waited = ptrace::wait_within(self.tid, limit);
        if waited.as_ref().is_err_and(is_timeout) {
            ptrace::interrupt(self.tid)?;
            // In a sleep that nothing interrupts it stays as it is, and so does the error.
            ptrace::wait_within(self.tid, STOP_WAIT)?;
        }
        waited
    }

    pub fn release(self) -> Result<(), Error> {
        self.let_go(0)
    }

    /// Detaches after taking this signal, which waits for its process and cannot be blocked, away
    /// from it. Every other signal waits meanwhile: the kernel delivers low numbers first, and to
    /// detach with one of those would leave this one behind.
    pub(crate) fn release_without(self, signal: i32) -> Result<(), Error> {
        self.let_go_without(signal)
    }

    /// Detaches and delivers this signal; 0 also swallows the signal it is stopped for.
    pub fn release_with(self, signal: i32) -> Result<(), Error> {
        self.let_go(signal)
    }

    /// [`Self::release_without`] for who keeps the thread if it fails, and tries again.
    pub(crate) fn let_go_without(&self, signal: i32) -> Result<(), Error> {
        // A SIGCONT from outside has taken it away already, and then it would never come.
        let waits = |info: &[u8; SIGINFO_BYTES]| signal_number(info) == signal;
        if self.queued_signals(true)?.iter().any(waits) {
            self.take_away(signal)?;
        }
        if let Some(mask) = self.own_mask.get() {
            self.set_signal_mask(mask)?;
            self.own_mask.set(None);
        }
        self.let_go(0)
    }

    /// [`Self::release_with`] for who keeps the thread if it fails, and tries again.
    pub(crate) fn let_go(&self, signal: i32) -> Result<(), Error> {
        for signal in self.held_back.take() {
            // It can only fail for a thread that is gone, and then detaching says so.
            let _ = thread_signal(self.pid, self.tid, signal);
        }
        ptrace::detach(self.tid, signal).on("release", || self.object())
    }

    fn take_away(&self, signal: i32) -> Result<(), Error> {
        let mask = self.own_mask.get().map_or_else(|| self.signal_mask(), Ok)?;
        self.own_mask.set(Some(mask));
        self.set_signal_mask(!0)?;
        loop {
            ptrace::cont(self.tid, 0).on("continue", || self.object())?;
            match ptrace::wait_within(self.tid, STOP_WAIT).on("wait for", || self.object())? {
                Event::Signal(found) if found == signal => return Ok(()),
                Event::Gone => {
                    let gone = io::Error::from_raw_os_error(libc::ESRCH);
                    return Err(gone).on("release", || self.object());
                }
                Event::Signal(_) | Event::Ptrace(_) | Event::GroupStop(_) | Event::Syscall => {}
            }
        }
    }

    /// `result` of something that was done with it. When it has been killed nothing can be done any
    /// more, and nothing has to. ptrace(2) says ESRCH then: only SIGKILL wakes a thread that we
    /// hold, and the thread runs for a moment before its state says that it has ended.
    pub(crate) fn unless_killed(&self, result: Result<(), Error>) -> Result<(), Error> {
        result.or_else(|error| match error.source.raw_os_error() {
            Some(libc::ESRCH) => Ok(()),
            _ if is_ending(self.pid, self.tid) => Ok(()),
            _ => Err(error),
        })
    }
}

fn is_ending(pid: i32, tid: i32) -> bool {
    let path = format!("/proc/{pid}/task/{tid}/stat");
    std::fs::read_to_string(path).map_or(true, |text| {
        text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

fn is_fault(signal: i32) -> bool {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS].contains(&signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asleep::Asleep;

    #[test]
    fn what_was_killed_a_moment_ago_needs_nothing() {
        for _ in 0..50 {
            let mut child = Asleep::start();
            let pid = child.pid();
            let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs).unwrap()
            else {
                panic!("sleep is alive")
            };
            let Outcome::Alive(stopped) = running.stop(STOP_WAIT).unwrap() else {
                panic!("sleep is alive")
            };
            child.child().kill().unwrap();
            stopped.unless_killed(stopped.set_on_our_death(OnOurDeath::Dies)).unwrap();
            stopped.unless_killed(stopped.let_go(0)).unwrap();
            drop(stopped);
            child.end();
        }
    }

    #[test]
    fn stops_and_releases_a_child() {
        let child = Asleep::start();
        let pid = child.pid();
        let Outcome::Alive(running) = Running::seize(pid, pid, OnOurDeath::Runs).unwrap() else {
            panic!("sleep is alive")
        };
        let Outcome::Alive(stopped) = running.stop(STOP_WAIT).unwrap() else {
            panic!("sleep is alive")
        };
        assert_ne!(stopped.registers().unwrap().rip, 0);
        stopped.release().unwrap();
    }

    #[test]
    fn a_thread_that_does_not_exist_is_gone() {
        let outcome = Running::seize(i32::MAX, i32::MAX, OnOurDeath::Runs).unwrap();
        assert!(matches!(outcome, Outcome::Gone));
    }
}
