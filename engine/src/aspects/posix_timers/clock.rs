//! Which clock a timer runs on. The one hard case is a thread's CPU clock, clock_getcpuclockid(3).
//!
//! A timer that was made with CLOCK_THREAD_CPUTIME_ID is on the clock of the thread that made it,
//! but the kernel lists every such clock alike. Who has one nearly always has it tell that same
//! thread (profilers do: Go's, gperftools'), so the thread that is told is taken for the one that
//! is measured. A timer that tells the process is refused, unless there is one thread only.

use super::super::{Subject, field};
use super::Listed;
use crate::refusal::Refusal;
use std::io;

/// The kernel's number for CLOCK_THREAD_CPUTIME_ID: the CPU clock of thread 0, the caller.
const THREAD_CLOCK: i32 = of_thread(0);

/// The number of a thread's CPU clock: MAKE_THREAD_CPUCLOCK(tid, CPUCLOCK_SCHED).
pub(super) const fn of_thread(tid: i32) -> i32 {
    (!tid << 3) | 0b110
}

/// The clock to make the timer with, whoever makes it.
pub(super) fn of(listed: &Listed, subject: &Subject<'_>) -> io::Result<i32> {
    match (listed.clock, listed.tid) {
        (THREAD_CLOCK, Some(tid)) => Ok(of_thread(tid)),
        (THREAD_CLOCK, None) if thread_count(subject)? > 1 => {
            Err(io::Error::other(format!("timer {} is on some thread's CPU clock", listed.id)))
        }
        (clock, _) => Ok(clock),
    }
}

pub(super) fn refused(listed: &[Listed], subject: &Subject<'_>) -> Vec<Refusal> {
    let refusal = |listed: &Listed| Refusal {
        object: subject.process(),
        reason: format!("has a timer (id {}) on the CPU clock of an unknown thread", listed.id),
        advice: "Have it delete the timer, or make it with SIGEV_THREAD_ID.".to_owned(),
    };
    listed.iter().filter(|listed| of(listed, subject).is_err()).map(refusal).collect()
}

fn thread_count(subject: &Subject<'_>) -> io::Result<u32> {
    let status = subject.text("status")?;
    let count = field(&status, "Threads").and_then(|count| count.parse().ok());
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "status has no Threads"))
}

#[cfg(test)]
mod tests {
    use super::super::super::Aspect as _;
    use super::super::super::trial::{alone, run, single_threaded, this_thread};
    use super::super::{PosixTimers, Timer};
    use super::*;
    use crate::error::Object;
    use std::sync::mpsc::channel;

    #[test]
    fn a_threads_number_is_as_the_kernel_makes_it() {
        assert_eq!(THREAD_CLOCK, -2);
        assert_eq!(of_thread(1), -10);
    }

    #[test]
    fn of_some_thread_among_several_is_refused() {
        let body = || {
            let clock = libc::CLOCK_THREAD_CPUTIME_ID;
            run(|batch| Timer { clock, signal: 40, ..Timer::default() }.create(&Object::Host, batch));
            assert_eq!(PosixTimers::examine(&this_thread()), []);
            let (end, ended) = channel::<()>();
            std::thread::scope(|scope| {
                scope.spawn(move || ended.recv().unwrap_err());
                let refusals = PosixTimers::examine(&this_thread());
                assert_eq!(refusals.len(), 1);
                assert!(refusals[0].reason.contains("id 0"), "{}", refusals[0]);
                drop(end);
            });
        };
        alone(|| single_threaded(body));
    }
}
