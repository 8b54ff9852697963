//! Timers made with timer_create(2).
//!
//! Which there are is in `/proc/PID/timers` (Linux 3.10, CONFIG_CHECKPOINT_RESTORE); how much
//! time remains is asked of each. They get their ids back through PR_TIMER_CREATE_RESTORE_IDS
//! (Linux 6.15); an older kernel counts ids up from 0 in a new process, so there every id below is
//! made and deleted.
//!
//! All are armed anew with the time that remained: the kernel does not tell whether a time was
//! given as an absolute one, so one on CLOCK_REALTIME no longer follows when that clock is set.
//! What timer_getoverrun(2) said of the last signal is lost.

mod clock;
mod listing;

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, Object, OnObject as _};
use crate::refusal::Refusal;
use crate::sys;
use listing::Listed;
use std::io;

pub(super) struct PosixTimers;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    timers: Vec<Timer>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Timer {
    #[prost(int32, tag = "1")]
    id: i32,
    #[prost(sint32, tag = "2")]
    clock: i32,
    /// SIGEV_SIGNAL, SIGEV_NONE or SIGEV_THREAD; with SIGEV_THREAD_ID for the thread below.
    #[prost(uint32, tag = "3")]
    notify: u32,
    #[prost(int32, tag = "4")]
    tid: i32,
    #[prost(int32, tag = "5")]
    signal: i32,
    #[prost(fixed64, tag = "6")]
    value: u64,
    /// Zero: it is not armed.
    #[prost(uint64, tag = "7")]
    remaining_ns: u64,
    #[prost(uint64, tag = "8")]
    interval_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;
/// struct itimerspec: seconds and nanoseconds of the interval, then of the time that remains.
const TIME_BYTES: usize = 32;
const SIGEVENT_BYTES: usize = 64;
/// Without PR_TIMER_CREATE_RESTORE_IDS each id below costs two calls, about 1 us.
const COUNTED_IDS_MAX: i32 = 65_536;
const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;

impl Aspect for PosixTimers {
    const NAME: &'static str = "POSIX timers";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = io::Result<Vec<(Listed, Call, Bytes)>>;

    fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
        let Ok(listed) = list(subject) else { return Vec::new() };
        clock::refused(&listed, subject)
    }

    fn ask(subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let ask = |listed: Listed| {
            let room = batch.room(TIME_BYTES);
            let call = batch.try_call(libc::SYS_timer_gettime, args![listed.id, room]);
            (listed, call, room)
        };
        Ok(list(subject)?.into_iter().map(ask).collect())
    }

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        let object = || subject.object(Self::NAME);
        let mut timers = Vec::new();
        for (listed, call, room) in asked.on("list", object)? {
            answers.result(call).on("read", object)?;
            let clock = clock::of(&listed, subject).on("tell the clock of", object)?;
            timers.push(Timer::answered(&listed, clock, room, answers));
        }
        timers.sort_by_key(|timer| timer.id);
        Ok(Image { timers })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        let timers = checked(image).on("restore", || object.clone())?;
        if sys::prctl::restores_timer_ids() {
            create_by_id(&timers, &object, batch);
        } else {
            create_by_counting(&timers, &object, batch)?;
        }
        for timer in timers {
            timer.arm(&object, batch);
        }
        Ok(())
    }
}

fn list(subject: &Subject<'_>) -> io::Result<Vec<Listed>> {
    listing::parse(&subject.text("timers")?)
}

/// The timers by their ids. Two with one id, or with one that no kernel gives, are an error.
fn checked(image: &Image) -> io::Result<Vec<Timer>> {
    let mut timers = image.timers.clone();
    timers.sort_by_key(|timer| timer.id);
    let twice = timers.windows(2).any(|pair| pair[0].id == pair[1].id);
    if twice || timers.first().is_some_and(|timer| timer.id < 0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the ids make no sense"));
    }
    Ok(timers)
}

fn create_by_id(timers: &[Timer], object: &Object, batch: &mut Batch) {
    if timers.is_empty() {
        return;
    }
    let switch = args![PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0];
    batch.call("choose the ids of", object, libc::SYS_prctl, switch);
    for timer in timers {
        timer.create(object, batch);
    }
    let switch = args![PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0];
    batch.call("stop choosing the ids of", object, libc::SYS_prctl, switch);
}

/// If the kernel counted otherwise, arming or deleting a timer that is not there fails.
fn create_by_counting(timers: &[Timer], object: &Object, batch: &mut Batch) -> Result<(), Error> {
    let Some(last) = timers.last() else { return Ok(()) };
    if last.id >= COUNTED_IDS_MAX {
        let why = format!("timer id {} takes Linux 6.15 (PR_TIMER_CREATE_RESTORE_IDS)", last.id);
        return Err(Error::new("restore", object.clone(), io::Error::other(why)));
    }
    for id in 0..=last.id {
        match timers.binary_search_by_key(&id, |timer| timer.id) {
            Ok(at) => timers[at].create(object, batch),
            Err(_) => {
                Timer { id, notify: none(), ..Timer::default() }.create(object, batch);
                batch.call("count up to", object, libc::SYS_timer_delete, args![id]);
            }
        }
    }
    Ok(())
}

fn none() -> u32 {
    libc::SIGEV_NONE.cast_unsigned()
}

impl Timer {
    fn answered(listed: &Listed, clock: i32, room: Bytes, answers: &Answers) -> Self {
        let [seconds, ns, left_seconds, left_ns] = [0, 1, 2, 3].map(|i| answers.u64_at(room, i));
        Self {
            id: listed.id,
            clock,
            notify: listed.notify,
            tid: listed.tid.unwrap_or(0),
            signal: listed.signal,
            value: listed.value,
            remaining_ns: left_seconds.saturating_mul(SECOND_NS).saturating_add(left_ns),
            interval_ns: seconds.saturating_mul(SECOND_NS).saturating_add(ns),
        }
    }

    fn create(&self, object: &Object, batch: &mut Batch) {
        let event = batch.bytes(&self.event());
        // Read where ids are chosen, written where they are counted.
        let id = batch.bytes(&self.id.to_ne_bytes());
        batch.call("create", object, libc::SYS_timer_create, args![self.clock, event, id]);
    }

    /// struct sigevent: value, signal, how, thread.
    fn event(&self) -> Vec<u8> {
        let value = self.value.to_ne_bytes();
        let rest = [self.signal, self.notify.cast_signed(), self.tid].map(i32::to_ne_bytes);
        let mut event = [&value[..], &rest.concat()].concat();
        event.resize(SIGEVENT_BYTES, 0);
        event
    }

    fn arm(&self, object: &Object, batch: &mut Batch) {
        if self.remaining_ns == 0 {
            return;
        }
        let split = |ns: u64| [ns / SECOND_NS, ns % SECOND_NS].map(u64::to_ne_bytes).concat();
        let times = batch.bytes(&[split(self.interval_ns), split(self.remaining_ns)].concat());
        batch.call("arm", object, libc::SYS_timer_settime, args![self.id, 0, times, 0]);
    }
}

#[cfg(fuzzing)]
pub(super) fn parse_all(text: &str) {
    let _ = listing::parse(text);
}

#[cfg(test)]
mod tests;
