//! A limit for system calls that take none, as waitpid(2): they end with EINTR when it is over.
//!
//! A timer of the kernel signals the thread that waits (timer_create(2), SIGEV_THREAD_ID). Looking
//! again and again instead would give the processor away, and on a busy machine it comes back late.

use std::cell::OnceCell;
use std::io;
use std::time::Duration;

/// After the first time it rings again, because it may ring just before the wait begins.
const AGAIN: Duration = Duration::from_millis(20);

/// Rings until it is dropped.
#[derive(Debug)]
pub(crate) struct Alarm(());

impl Alarm {
    /// Of this thread. There is one at a time: another one takes its place.
    pub(crate) fn after(limit: Duration) -> io::Result<Self> {
        TIMER.with(|timer| {
            if timer.get().is_none() {
                let made = Timer::make()?;
                timer.set(made).unwrap_or_else(|_| unreachable!("it was not set"));
            }
            Ok::<_, io::Error>(())
        })?;
        set(limit.max(Duration::from_micros(1)))?;
        Ok(Self(()))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // Only a timer that does not exist cannot be stopped.
        let _ = set(Duration::ZERO);
    }
}

thread_local! {
    static TIMER: OnceCell<Timer> = const { OnceCell::new() };
}

struct Timer(libc::timer_t);

/// The C library keeps the first ones for itself, and debuggers and profilers take the last ones.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 9
}

extern "C" fn ring(_signal: libc::c_int) {}

impl Timer {
    fn make() -> io::Result<Self> {
        handle()?;
        unblock()?;
        // SAFETY: gettid(2) has no conditions.
        let thread = unsafe { libc::gettid() };
        // SAFETY: all-zero bytes are a valid sigevent, it is integers and a pointer.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        event.sigev_notify_thread_id = thread;
        let mut timer = std::ptr::null_mut();
        // SAFETY: both point to live objects of the types that timer_create(2) takes.
        check(unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
        })?;
        Ok(Self(timer))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `make`, and nothing uses it any more.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Without SA_RESTART, so that a call that waits ends.
fn handle() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ring as *const () as usize;
    // SAFETY: the handler does nothing, so it may run anywhere, also with SIGSEGV's stack.
    check(unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) })
}

fn unblock() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigset, and the empty one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, and the signal a valid number.
    check(unsafe { libc::sigaddset(&raw mut set, signal()) })?;
    // SAFETY: the set is a live object, and what it was before is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) }
    {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Zero stops it.
fn set(limit: Duration) -> io::Result<()> {
    let seconds = |time: Duration| libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let times = libc::itimerspec { it_interval: seconds(AGAIN), it_value: seconds(limit) };
    TIMER.with(|timer| {
        let Some(Timer(timer)) = timer.get() else { return Ok(()) };
        // SAFETY: the timer lives as long as its thread, and the times are read during the call.
        check(unsafe { libc::timer_settime(*timer, 0, &raw const times, std::ptr::null_mut()) })
    })
}

fn check(ret: libc::c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::time::Instant;

    fn wait_for_nothing() -> io::Result<()> {
        let (reader, _writer) = io::pipe().unwrap();
        let mut byte = 0_u8;
        // SAFETY: one byte is there to be written.
        let ret = unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    #[test]
    fn it_ends_a_call_that_would_wait_for_ever_and_then_is_silent() {
        for _ in 0..2 {
            let began = Instant::now();
            let alarm = Alarm::after(Duration::from_millis(30)).unwrap();
            let error = wait_for_nothing().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            assert!(began.elapsed() >= Duration::from_millis(30));
            drop(alarm);
            std::thread::sleep(2 * AGAIN); // would end early, and be repeated, which costs nothing
        }
    }

    #[test]
    fn one_that_rings_before_the_wait_begins_rings_again() {
        let _alarm = Alarm::after(Duration::ZERO).unwrap();
        std::thread::sleep(AGAIN / 4);
        assert_eq!(wait_for_nothing().unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn every_thread_has_its_own() {
        let _alarm = Alarm::after(Duration::from_secs(60)).unwrap();
        let waiter = std::thread::spawn(|| {
            let _alarm = Alarm::after(Duration::from_millis(10)).unwrap();
            wait_for_nothing().unwrap_err().kind()
        });
        assert_eq!(waiter.join().unwrap(), io::ErrorKind::Interrupted);
    }
}
