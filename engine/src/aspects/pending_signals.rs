//! Signals that wait for a process or a thread, each with its siginfo: what PTRACE_PEEKSIGINFO
//! reads, rt_sigqueueinfo(2) queues again.
//!
//! A thread may send itself any `si_code`, even one that only the kernel sends otherwise. Queued
//! after the signal actions, while all signals are blocked. A standard signal waits at most once,
//! and the kernel drops a second one without a word.

use super::Subject;
use crate::args;
use crate::batch::Batch;
use crate::error::Error;

/// Where signals wait: for any thread of the process, or for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Process,
    Thread,
}

/// siginfo_t, on every architecture.
const SIGINFO_BYTES: usize = 128;
const LAST_SIGNAL: i32 = 64;

/// Writes the calls that make these signals wait again, in their order. Fails if one of them is
/// no siginfo, or is SIGKILL, which never waits.
pub fn restore_pending_signals(
    queue: Queue,
    signals: &[Vec<u8>],
    subject: &Subject<'_>,
    batch: &mut Batch,
) -> Result<(), Error> {
    let object = subject.object("pending signals");
    for siginfo in signals {
        let signal = number(siginfo).ok_or_else(|| {
            Error::invalid("queue", object.clone(), "these bytes are no signal that can wait")
        })?;
        let bytes = batch.bytes(siginfo);
        // Asked of the thread itself: its ids may be others in our PID namespace.
        let pid = batch.call("ask for the id of", &object, libc::SYS_getpid, args![]);
        match queue {
            Queue::Process => {
                let args = args![pid, signal, bytes];
                batch.call("queue", &object, libc::SYS_rt_sigqueueinfo, args);
            }
            Queue::Thread => {
                let tid = batch.call("ask for the id of", &object, libc::SYS_gettid, args![]);
                let args = args![pid, tid, signal, bytes];
                batch.call("queue", &object, libc::SYS_rt_tgsigqueueinfo, args);
            }
        }
    }
    Ok(())
}

fn number(siginfo: &[u8]) -> Option<i32> {
    let signal = i32::from_ne_bytes(*siginfo.first_chunk()?);
    let can_wait = (1..=LAST_SIGNAL).contains(&signal) && signal != libc::SIGKILL;
    (siginfo.len() == SIGINFO_BYTES && can_wait).then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, run, set, single_threaded, this_thread};
    use super::*;

    /// Signal, error, code, padding, then the union: sender or timer, and a value.
    fn siginfo(signal: i32, code: i32, value: u64) -> Vec<u8> {
        let head = [signal, 0, code, 0].map(i32::to_ne_bytes).concat();
        let mut bytes = [head, 7_u64.to_ne_bytes().into(), value.to_ne_bytes().into()].concat();
        bytes.resize(SIGINFO_BYTES, 0);
        bytes
    }

    fn block_all() {
        run(|batch| {
            let all = batch.bytes(&u64::MAX.to_ne_bytes());
            set(batch, libc::SYS_rt_sigprocmask, args![libc::SIG_SETMASK, all, 0, 8]);
        });
    }

    fn take(signal: i32) -> Vec<u8> {
        let mut room = None;
        let answers = run(|batch| {
            let wanted = batch.bytes(&(1_u64 << (signal - 1)).to_ne_bytes());
            let at = batch.room(SIGINFO_BYTES);
            let no_time = batch.room(16);
            set(batch, libc::SYS_rt_sigtimedwait, args![wanted, at, no_time, 8]);
            room = Some(at);
        });
        answers.bytes(room.unwrap()).to_vec()
    }

    #[test]
    fn wait_again_with_all_they_carry() {
        let body = || {
            block_all();
            // From the kernel, from sigqueue(3) twice, from tgkill(2).
            let kernel = siginfo(libc::SIGUSR1, libc::SI_KERNEL, 0);
            let first = siginfo(40, libc::SI_QUEUE, 1);
            let second = siginfo(40, libc::SI_QUEUE, 2);
            let own = siginfo(41, libc::SI_TKILL, 3);
            let process = [kernel.clone(), first.clone(), second.clone()];
            run(|batch| {
                let subject = this_thread();
                restore_pending_signals(Queue::Process, &process, &subject, batch).unwrap();
                let own = [own.clone()];
                restore_pending_signals(Queue::Thread, &own, &subject, batch).unwrap();
            });
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let field = |name| super::super::field(&status, name).unwrap().to_owned();
            assert_eq!(field("ShdPnd"), "0000008000000200");
            assert_eq!(field("SigPnd"), "0000010000000000");
            assert_eq!(take(libc::SIGUSR1), kernel);
            assert_eq!([take(40), take(40)], [first, second]);
            assert_eq!(take(41), own);
        };
        // Another thread would take what waits for the process.
        alone(|| single_threaded(body));
    }

    #[test]
    fn that_are_none_are_an_error() {
        let short = vec![0; 12];
        for bytes in [short, vec![], siginfo(0, 0, 0), siginfo(65, 0, 0), siginfo(9, 0, 0)] {
            let subject = this_thread();
            let queued =
                restore_pending_signals(Queue::Process, &[bytes], &subject, &mut Batch::new());
            assert!(queued.is_err());
        }
    }
}
