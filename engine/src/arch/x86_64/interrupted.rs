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

/// The registers with which a *new* task continues where the old one stood: as if it had just come
/// out of the call, on its way to a signal if there is one. The kernel decides when the task is let
/// go, with the handler in view: a call that signals end becomes EINTR, any other is issued again.
/// So a signal that comes while the task is built counts as well.
pub(crate) fn on_a_new_task(registers: &Registers) -> Registers {
    let mut next = *registers;
    if !in_system_call(registers) {
        return next;
    }
    match registers.rax.cast_signed() {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => {}
        ERESTART_RESTARTBLOCK => {
            take_remaining_time(&mut next);
            next.rax = ERESTARTNOHAND.cast_unsigned();
        }
        EINTR if never_restarted(registers.orig_rax) => {
            next.rax = ERESTARTNOHAND.cast_unsigned();
        }
        _ => next.orig_rax = u64::MAX,
    }
    next
}

/// The registers with the number of the call in which the thread was stopped. Where it was stopped in
/// that call before, by whomever, the kernel went on by restart_syscall(2), which does so for that task
/// alone; then the number stands in the code in front of the call, if anywhere. `read` reads the code.
pub(crate) fn by_name(
    registers: &Registers,
    read: impl FnOnce(u64) -> Option<[u8; NAMED_CALL_BYTES]>,
) -> Registers {
    let mut next = *registers;
    if registers.orig_rax.cast_signed() == libc::SYS_restart_syscall {
        let code = read(registers.rip.wrapping_sub(NAMED_CALL_BYTES as u64));
        next.orig_rax = code.and_then(number_in).unwrap_or(next.orig_rax);
    }
    next
}

/// Of `mov $NUMBER, %eax; syscall`.
pub(crate) const NAMED_CALL_BYTES: usize = 7;

fn number_in(code: [u8; NAMED_CALL_BYTES]) -> Option<u64> {
    let [0xb8, number @ .., 0x0f, 0x05] = code else { return None };
    let number = u32::from_le_bytes(number);
    let restarts =
        [libc::SYS_poll, libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_futex];
    restarts.contains(&number.into()).then_some(number.into())
}

/// The descriptor of a connect(2) that would be issued again.
pub(crate) fn connects(registers: &Registers) -> Option<i32> {
    let waits = matches!(registers.rax.cast_signed(), ERESTARTSYS | EINTR);
    let is_it = in_system_call(registers) && registers.orig_rax.cast_signed() == libc::SYS_connect;
    i32::try_from(registers.rdi).ok().filter(|_| is_it && waits)
}

/// The socket of a recvmmsg(2) that has just returned with some messages.
pub(crate) fn received_some(registers: &Registers) -> Option<i32> {
    let is_it = in_system_call(registers) && registers.orig_rax.cast_signed() == libc::SYS_recvmmsg;
    i32::try_from(registers.rdi).ok().filter(|_| is_it && registers.rax.cast_signed() > 0)
}

/// The registers of a thread whose call has ended with that.
pub(crate) fn ended_with(registers: &Registers, result: i64) -> Registers {
    let mut next = *registers;
    next.rax = result.cast_unsigned();
    next.orig_rax = u64::MAX;
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

/// The registers for a signal frame with which the same task goes on when we are dead. Returning
/// from a signal (rt_sigreturn(2)) forgets the interrupted call as a new task does, and leaves
/// nothing for the kernel to decide.
///
/// `signal_pending`: a signal that the thread does not block is queued. Whether its handler has
/// SA_RESTART is not known here: where that matters the call is issued again, as if the signal had
/// come just before it.
pub(crate) fn by_signal_return(registers: &Registers, signal_pending: bool) -> Registers {
    let mut next = on_a_new_task(registers);
    if !in_system_call(&next) {
        return next;
    }
    if signal_pending && next.rax.cast_signed() == ERESTARTNOHAND {
        next.rax = EINTR.cast_unsigned();
        next.orig_rax = u64::MAX;
    } else {
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

/// The calls that signal(7) lists as failing with EINTR after a stop, even without a handler. Those
/// from read(2) on do so on a socket with a time limit (SO_RCVTIMEO, SO_SNDTIMEO of socket(7)), as long
/// as they have moved nothing; issued again, they have the whole limit.
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
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_connect,
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
        let after = on_a_new_task(&before);
        assert_eq!((after.rip, after.rdi, after.orig_rax), (0x1002, 0x20, 35));
        assert_eq!(after.rax.cast_signed(), ERESTARTNOHAND);
        let after = by_signal_return(&before, false);
        assert_eq!((after.rip, after.rdi, after.rax), (0x1000, 0x20, 35));
        assert_eq!(after.orig_rax, u64::MAX);
    }

    #[test]
    fn a_waiting_epoll_never_fails_for_our_stop() {
        let before = stopped_in(libc::SYS_epoll_wait, EINTR);
        for after in [by_signal_return(&before, false), on_the_same_task(&before, false)] {
            assert_eq!((after.rip, after.rax.cast_signed()), (0x1000, libc::SYS_epoll_wait));
        }
        assert_eq!(on_a_new_task(&before).rax.cast_signed(), ERESTARTNOHAND);
    }

    #[test]
    fn a_socket_with_a_time_limit_fails_for_no_stop_of_ours_and_sends_nothing_twice() {
        let before = stopped_in(libc::SYS_recvfrom, EINTR);
        let after = on_the_same_task(&before, false);
        assert_eq!((after.rip, after.rax.cast_signed()), (0x1000, libc::SYS_recvfrom));
        let half_done = stopped_in(libc::SYS_sendmsg, 65_536);
        for after in [on_a_new_task(&half_done), on_the_same_task(&half_done, false)] {
            assert_eq!((after.rip, after.rax.cast_signed()), (0x1002, 65_536));
        }
    }

    #[test]
    fn a_call_that_was_stopped_before_has_its_number_in_the_code() {
        let before = stopped_in(libc::SYS_restart_syscall, ERESTART_RESTARTBLOCK);
        let code = |number| [0xb8, number, 0, 0, 0, 0x0f, 0x05];
        let poll = by_name(&before, |at| (at == 0x1002 - 7).then(|| code(7)));
        assert_eq!((poll.orig_rax, poll.rip), (7, 0x1002));
        // A call that is never restarted so, and other code.
        for other in [code(1), [0x90; 7]] {
            assert_eq!(by_name(&before, |_| Some(other)).orig_rax, before.orig_rax);
        }
        let plain = stopped_in(libc::SYS_read, ERESTARTSYS);
        assert_eq!(by_name(&plain, |_| unreachable!()).orig_rax, plain.orig_rax);
    }

    #[test]
    fn only_a_connect_that_waits_is_one() {
        let mut before = stopped_in(libc::SYS_connect, ERESTARTSYS);
        before.rdi = 7;
        assert_eq!(connects(&before), Some(7));
        let after = ended_with(&before, 0);
        assert_eq!((after.rip, after.rax, after.orig_rax), (0x1002, 0, u64::MAX));
        assert_eq!(connects(&stopped_in(libc::SYS_connect, 0)), None);
        assert_eq!(connects(&stopped_in(libc::SYS_read, ERESTARTSYS)), None);
    }

    #[test]
    fn a_signal_that_waits_still_ends_it() {
        let before = stopped_in(libc::SYS_epoll_wait, EINTR);
        let after = by_signal_return(&before, true);
        assert_eq!((after.rip, after.rax.cast_signed()), (0x1002, EINTR));
    }

    #[test]
    fn a_call_that_has_ended_is_not_issued_again() {
        for result in [0, 7, EINTR] {
            let after = on_a_new_task(&stopped_in(libc::SYS_close, result));
            assert_eq!((after.rip, after.rax.cast_signed()), (0x1002, result));
            assert_eq!(after.orig_rax, u64::MAX);
        }
    }

    #[test]
    fn a_program_in_its_own_code_is_left_alone() {
        let before = stopped_in(-1, EINTR);
        assert_eq!(on_a_new_task(&before).rip, 0x1002);
        assert_eq!(by_signal_return(&before, true).rip, 0x1002);
    }

    #[test]
    fn a_signal_frame_leaves_nothing_for_the_kernel_to_decide() {
        let before = stopped_in(libc::SYS_read, ERESTARTSYS);
        let after = by_signal_return(&before, true);
        assert_eq!((after.rip, after.rax.cast_signed()), (0x1000, libc::SYS_read));
        let before = stopped_in(libc::SYS_select, ERESTARTNOHAND);
        let after = by_signal_return(&before, true);
        assert_eq!((after.rip, after.rax.cast_signed()), (0x1002, EINTR));
        assert_eq!(after.orig_rax, u64::MAX);
    }
}
