//! How a thread that was stopped inside a system call goes on.
//!
//! Where the kernel stops a sleeping call for us, `rax` holds one of its private error numbers
//! (or `EINTR` for the calls of signal(7) that are never restarted) and `orig_rax` the call. On
//! the source the kernel sorts that out itself, since the same task goes on. A new task has no
//! restart block, and no memory of the call: we make it issue the call again.

use crate::tracee::Registers;

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -4;
const SYS_IO_PGETEVENTS: i64 = 333;
const SYSCALL_INSTRUCTION_BYTES: u64 = 2;

/// The registers with which a *new* task continues where the old one stood.
///
/// `signal_pending`: a signal that the thread does not block is queued. Then a call that signals
/// always end (epoll_wait, nanosleep with a handler) is left to end with `EINTR`.
pub(crate) fn on_a_new_task(registers: &Registers, signal_pending: bool) -> Registers {
    let mut next = *registers;
    if !in_system_call(registers) {
        return next;
    }
    match registers.rax.cast_signed() {
        // The kernel decides on its way out, with the handler in view: with a handler that has
        // no SA_RESTART these become EINTR, without one they are issued again.
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND if signal_pending => return next,
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => {}
        ERESTART_RESTARTBLOCK if signal_pending => {
            next.rax = EINTR.cast_unsigned();
            next.orig_rax = u64::MAX;
            return next;
        }
        ERESTART_RESTARTBLOCK => take_remaining_time(&mut next),
        EINTR if never_restarted(registers.orig_rax) && !signal_pending => {}
        _ => {
            next.orig_rax = u64::MAX;
            return next;
        }
    }
    issue_again(&mut next);
    next
}

/// The registers with which the *same* task goes on. Only the calls that a mere stop ends with
/// `EINTR` need care: the program asked for no stop, so it must not see one.
pub(crate) fn on_the_same_task(registers: &Registers, signal_pending: bool) -> Registers {
    let mut next = *registers;
    let ended_by_us = in_system_call(registers)
        && registers.rax.cast_signed() == EINTR
        && never_restarted(registers.orig_rax);
    if ended_by_us && !signal_pending {
        issue_again(&mut next);
    }
    next
}

fn in_system_call(registers: &Registers) -> bool {
    registers.orig_rax.cast_signed() >= 0
}

fn issue_again(registers: &mut Registers) {
    registers.rax = registers.orig_rax;
    registers.orig_rax = u64::MAX;
    registers.rip -= SYSCALL_INSTRUCTION_BYTES;
}

/// An interrupted nanosleep has written what remains to its second argument, if it has one;
/// clock_nanosleep to its fourth. Sleeping that long is right; the full time again would not be.
fn take_remaining_time(registers: &mut Registers) {
    let number = registers.orig_rax.cast_signed();
    if number == libc::SYS_nanosleep && registers.rsi != 0 {
        registers.rdi = registers.rsi;
    }
    if number == libc::SYS_clock_nanosleep && registers.r10 != 0 {
        registers.rdx = registers.r10;
    }
}

/// The calls that signal(7) lists as failing with EINTR after a stop, even without a handler.
fn never_restarted(number: u64) -> bool {
    [
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_semop,
        libc::SYS_semtimedop,
        libc::SYS_io_getevents,
        SYS_IO_PGETEVENTS,
    ]
    .contains(&number.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracee::Registers;

    fn stopped_in(number: i64, result: i64) -> Registers {
        let mut registers = crate::sys::ptrace::no_registers();
        registers.orig_rax = number.cast_unsigned();
        registers.rax = result.cast_unsigned();
        registers.rip = 0x1002;
        registers
    }

    #[test]
    fn a_sleep_goes_on_with_what_remains() {
        let mut before = stopped_in(libc::SYS_nanosleep, ERESTART_RESTARTBLOCK);
        (before.rdi, before.rsi) = (0x10, 0x20);
        let after = on_a_new_task(&before, false);
        assert_eq!((after.rip, after.rdi, after.rax), (0x1000, 0x20, 35));
        assert_eq!(after.orig_rax, u64::MAX);
    }

    #[test]
    fn a_waiting_epoll_is_issued_again_and_never_fails_for_our_stop() {
        let before = stopped_in(libc::SYS_epoll_wait, EINTR);
        for after in [on_a_new_task(&before, false), on_the_same_task(&before, false)] {
            assert_eq!((after.rip, after.rax.cast_signed()), (0x1000, libc::SYS_epoll_wait));
        }
    }

    #[test]
    fn a_signal_that_waits_still_ends_it() {
        let before = stopped_in(libc::SYS_epoll_wait, EINTR);
        let after = on_a_new_task(&before, true);
        assert_eq!((after.rip, after.rax.cast_signed()), (0x1002, EINTR));
    }

    #[test]
    fn a_program_in_its_own_code_is_left_alone() {
        let before = stopped_in(-1, EINTR);
        assert_eq!(on_a_new_task(&before, false).rip, 0x1002);
    }
}
