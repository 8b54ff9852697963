//! A thread whose registers and mask are ours for a while.

use super::detour::Detour;
use super::way_back::WayBack;
use crate::arch::x86_64::blob;
use crate::error::{Error, Object, OnObject as _};
use crate::sys::ptrace::{self, Event};
use crate::tracee::{CALL_WAIT, Registers, Stopped, is_timeout};
use std::cell::{Cell, OnceCell};
use std::io;
use std::time::Duration;

pub(super) fn all_signals_but(signal: i32) -> u64 {
    !(1 << (signal - 1))
}

/// A thread under our control: what it was doing is put aside, and comes back with `end`.
#[derive(Debug)]
pub struct Steered<'a> {
    thread: &'a Stopped,
    registers: Registers,
    signal_mask: u64,
    xstate: OnceCell<Vec<u8>>,
    /// Made for the first batch, if a program is steered.
    pub(super) way_back: OnceCell<WayBack>,
    /// What it has of ours at this moment.
    has_our_registers: Cell<bool>,
    has_our_mask: Cell<Option<u64>>,
    /// For one call, or one batch.
    pub(super) limit: Duration,
}

impl<'a> Steered<'a> {
    pub fn begin(thread: &'a Stopped) -> Result<Self, Error> {
        let registers = thread.registers()?;
        let signal_mask = thread.signal_mask()?;
        Ok(Self {
            thread,
            registers,
            signal_mask,
            xstate: OnceCell::new(),
            way_back: OnceCell::new(),
            has_our_registers: Cell::new(false),
            has_our_mask: Cell::new(None),
            limit: CALL_WAIT,
        })
    }

    pub fn thread(&self) -> &Stopped {
        self.thread
    }

    /// What the thread was doing.
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    pub fn signal_mask(&self) -> u64 {
        self.signal_mask
    }

    /// The vector registers, which no call of ours changes. Read once, for 2 us.
    pub fn xstate(&self) -> Result<&[u8], Error> {
        if self.xstate.get().is_none() {
            let read = self.thread.xstate()?;
            self.xstate.set(read).expect("it was not set, and nobody else is here");
        }
        Ok(self.xstate.get().expect("it was just set"))
    }

    /// Gives the thread its own registers and mask back.
    pub fn end(self) -> Result<(), Error> {
        let ended = self.put_back();
        self.leave();
        ended
    }

    /// Leaves the thread as it is: it is given other registers and another mask next.
    pub(crate) fn leave(self) {
        self.has_our_registers.set(false);
        self.has_our_mask.set(None);
    }

    /// The registers first: the code that they lead to gives a program its mask back if we die
    /// now, its own code would not.
    pub(super) fn take(&self, registers: &Registers, mask: u64) -> Result<(), Error> {
        self.has_our_registers.set(true);
        self.thread.set_registers(registers)?;
        if self.has_our_mask.get() != Some(mask) {
            self.has_our_mask.set(Some(mask));
            self.thread.set_signal_mask(mask)?;
        }
        Ok(())
    }

    /// The mask first, for the same reason.
    pub(super) fn put_back(&self) -> Result<(), Error> {
        if self.has_our_mask.get().is_some() {
            self.thread.set_signal_mask(self.signal_mask)?;
            self.has_our_mask.set(None);
        }
        if self.has_our_registers.get() {
            self.thread.set_registers(&self.registers)?;
            self.has_our_registers.set(false);
        }
        Ok(())
    }

    /// One system call at the `syscall` instruction at `at`, or on a detour from there.
    pub fn call(
        &self,
        at: u64,
        action: &'static str,
        number: i64,
        args: [u64; 6],
    ) -> Result<u64, Error> {
        let thread = self.thread;
        let detour = Detour::lay(self, at)?;
        let at = detour.as_ref().map_or(at, Detour::syscall_at);
        self.take(
            &blob::calling(&self.registers, at, number, args),
            all_signals_but(libc::SIGTRAP),
        )?;
        let ended = self.to_the_end_of_the_call();
        let is_back = self.put_back();
        // Where it could not be got back it may be on its way still.
        if is_back.is_ok() {
            let cleared = detour.map_or(Ok(()), |detour| detour.clear());
            cleared.on("clear the vdso of", || thread.object())?;
        }
        let raw = ended.map_err(|error| self.unended(error, number, action, thread.object()))?;
        is_back?;
        let result = match i32::try_from(-raw) {
            Ok(errno) if (1..4096).contains(&errno) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(raw.cast_unsigned()),
        };
        result.on(action, || thread.object())
    }
}

impl Steered<'_> {
    /// Entry, then exit. Stepping would end in a forced SIGTRAP, these stops do not.
    fn to_the_end_of_the_call(&self) -> Result<i64, Error> {
        for _ in 0..2 {
            let is_syscall = |event| event == Event::Syscall;
            self.thread.run_to(ptrace::cont_to_syscall, is_syscall, self.limit)?;
        }
        Ok(self.thread.registers()?.rax.cast_signed())
    }

    /// Says which call it was that did not end. Other errors stay as they are.
    pub(super) fn unended(
        &self,
        error: Error,
        number: i64,
        action: &'static str,
        object: Object,
    ) -> Error {
        if !is_timeout(&error.source) {
            return error;
        }
        let (pid, tid) = (self.thread.pid(), self.thread.tid());
        let limit = self.limit;
        let why = format!(
            "system call {number} of thread {tid} of process {pid} has not returned for {limit:?}"
        );
        Error::new(action, object, io::Error::new(io::ErrorKind::TimedOut, why))
    }
}

/// An error on the way must not leave a program with our registers.
impl Drop for Steered<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            tracing::warn!(%error, "a thread did not get its registers back");
        }
    }
}
