//! The three alarm clocks of a process: real, virtual and profiling time, getitimer(2).
//!
//! Set again to the time that remained. The virtual and profiling ones count the new process's
//! own CPU time from there; the real one follows the monotonic clock.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct IntervalTimers;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, optional, tag = "1")]
    real: Option<Timer>,
    #[prost(message, optional, tag = "2")]
    virtual_: Option<Timer>,
    #[prost(message, optional, tag = "3")]
    profiling: Option<Timer>,
}

/// One that runs. Nothing is recorded of one that does not.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Timer {
    #[prost(uint64, tag = "1")]
    remaining_us: u64,
    #[prost(uint64, tag = "2")]
    interval_us: u64,
}

const WHICH: [i32; 3] = [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF];
/// struct itimerval: seconds and microseconds of the interval, then of the time that remains.
const TIMER_BYTES: usize = 32;
const SECOND_US: u64 = 1_000_000;

impl Aspect for IntervalTimers {
    const NAME: &'static str = "interval timers";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = [(Call, Bytes); 3];

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        WHICH.map(|which| {
            let room = batch.room(TIMER_BYTES);
            (batch.try_call(libc::SYS_getitimer, args![which, room]), room)
        })
    }

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        for (call, _) in asked {
            answers.result(call).on("read", || subject.object(Self::NAME))?;
        }
        let [real, virtual_, profiling] = asked.map(|(_, room)| Timer::answered(room, answers));
        Ok(Image { real, virtual_, profiling })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let timers = [image.real, image.virtual_, image.profiling];
        for (which, timer) in WHICH.into_iter().zip(timers) {
            let bytes = batch.bytes(&timer.unwrap_or_default().kernel_bytes());
            let args = args![which, bytes, 0];
            batch.call("restore", &subject.object(Self::NAME), libc::SYS_setitimer, args);
        }
        Ok(())
    }
}

impl Timer {
    fn answered(room: Bytes, answers: &Answers) -> Option<Self> {
        let [seconds, us, left_seconds, left_us] = [0, 1, 2, 3].map(|i| answers.u64_at(room, i));
        let timer = Self {
            remaining_us: left_seconds.saturating_mul(SECOND_US).saturating_add(left_us),
            interval_us: seconds.saturating_mul(SECOND_US).saturating_add(us),
        };
        timer.running()
    }

    /// One that has fired says that nothing remains, and the kernel sets it again only when its
    /// SIGALRM is taken. That waits as well and will be taken there, but a timer that is set with
    /// nothing remaining would be off for good: it goes on one interval later.
    fn running(self) -> Option<Self> {
        let remaining_us = if self.remaining_us == 0 { self.interval_us } else { self.remaining_us };
        (remaining_us != 0).then_some(Self { remaining_us, ..self })
    }

    fn kernel_bytes(self) -> Vec<u8> {
        [self.interval_us, self.remaining_us]
            .map(|us| [us / SECOND_US, us % SECOND_US].map(u64::to_ne_bytes).concat())
            .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, restore, run, set, single_threaded};
    use super::*;

    fn arm(which: i32, timer: Timer) {
        run(|batch| {
            let bytes = batch.bytes(&timer.kernel_bytes());
            set(batch, libc::SYS_setitimer, args![which, bytes, 0]);
        });
    }

    fn near(timer: Option<Timer>, remaining_s: u64, interval_us: u64) -> bool {
        timer.is_some_and(|t| {
            t.interval_us == interval_us
                && (remaining_s - 25..=remaining_s).contains(&(t.remaining_us / SECOND_US))
        })
    }

    #[test]
    fn one_that_has_fired_goes_on() {
        let interval_us = 700 * SECOND_US;
        let fired = || {
            let mut alarm = nix::sys::signal::SigSet::empty();
            alarm.add(nix::sys::signal::Signal::SIGALRM);
            alarm.thread_block().unwrap();
            arm(libc::ITIMER_REAL, Timer { remaining_us: 1, interval_us });
            std::thread::sleep(std::time::Duration::from_millis(20));
            let image = capture::<IntervalTimers>();
            assert!(near(image.real, 700, interval_us), "{image:?}");
            restore::<IntervalTimers>(&image).unwrap();
            assert!(near(capture::<IntervalTimers>().real, 700, interval_us));
        };
        // Another thread would take the signal, and die of it.
        alone(|| single_threaded(fired));
    }

    #[test]
    fn come_back_with_what_remained() {
        alone(|| {
            arm(libc::ITIMER_REAL, Timer { remaining_us: 1000 * SECOND_US, interval_us: 2_500_000 });
            arm(libc::ITIMER_PROF, Timer { remaining_us: 2000 * SECOND_US, interval_us: 0 });
            let image = capture::<IntervalTimers>();
            assert!(near(image.real, 1000, 2_500_000) && near(image.profiling, 2000, 0));
            assert_eq!(image.virtual_, None);
            arm(libc::ITIMER_REAL, Timer::default());
            arm(libc::ITIMER_PROF, Timer { remaining_us: 9000 * SECOND_US, interval_us: 7 });
            arm(libc::ITIMER_VIRTUAL, Timer { remaining_us: 9000 * SECOND_US, interval_us: 7 });
            restore::<IntervalTimers>(&image).unwrap();
            let back = capture::<IntervalTimers>();
            assert!(near(back.real, 1000, 2_500_000), "{back:?}");
            assert!(near(back.profiling, 2000, 0), "{back:?}");
            assert_eq!(back.virtual_, None);
        });
    }
}
