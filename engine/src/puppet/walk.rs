//! Batches under way: one thread's after another's walk, or those of many threads at a time.

use super::lane::{LANES, Lane};
use super::steered::all_signals_but;
use super::way_back::WayBack;
use super::{Puppet, Steered};
use crate::arch::x86_64::blob;
use crate::batch::{Answers, Arg, Batch, Bytes, Entry};
use crate::error::Error;
use crate::sys::ptrace::{self, Event};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;

/// A thread of [`Puppet::run_each`] and what it is to do.
pub(crate) struct Errand<'t, P> {
    pub(crate) steered: Steered<'t>,
    pub(crate) batch: Batch,
    /// Whatever the caller needs to understand the answers.
    pub(crate) about: P,
}

struct UnderWay<'t, P> {
    errand: Errand<'t, P>,
    lane: Lane,
    ends: Option<blob::WayBack>,
}

/// One thread's batch in one lane.
pub(super) struct Walk<'a> {
    pub(super) lane: &'a Lane,
    pub(super) steered: &'a Steered<'a>,
    pub(super) batch: &'a Batch,
    /// How it ends: `None` in a trap, as a stub's does.
    pub(super) ends: Option<blob::WayBack>,
}

impl<P> UnderWay<'_, P> {
    fn walk(&self) -> Walk<'_> {
        let Errand { steered, batch, .. } = &self.errand;
        Walk { lane: &self.lane, steered, batch, ends: self.ends }
    }
}

impl Puppet {
    /// Makes the thread do the whole batch. A call that had to succeed and failed is the error.
    /// A batch may have more calls than there is room for; its bytes must fit at once.
    pub fn run(&self, steered: &Steered<'_>, batch: &Batch) -> Result<Answers, Error> {
        let lane = &Lane::WHOLE;
        if batch.bytes.len() > lane.bytes.len() {
            let object = steered.thread().object();
            return Err(Error::invalid("steer", object, "a batch has too many bytes"));
        }
        let walk = Walk { lane, steered, batch, ends: self.prepare(lane, steered, batch)? };
        let mut results = Vec::with_capacity(batch.entries.len());
        while results.len() < batch.entries.len() {
            let end = batch.entries.len().min(results.len() + lane.entries_max());
            let range = results.len()..end;
            self.set_out(&walk, range.clone(), &results)?;
            self.arrive(&walk, range, &mut results)?;
        }
        self.come_back(&walk, results)
    }

    /// Makes many threads do a batch each, several of them at a time: while one walks, the next ones
    /// are prepared, and those before are read. `ended` hears of them in the order in which they
    /// come. After an error nobody sets out any more, and nobody is left on the way.
    pub(crate) fn run_each<'t, P>(
        &self,
        errands: impl Iterator<Item = Result<Errand<'t, P>, Error>>,
        mut ended: impl FnMut(P, Steered<'t>, Answers) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut under_way = VecDeque::with_capacity(LANES);
        let mut result = Ok(());
        for (number, errand) in errands.enumerate() {
            let lane = Lane::narrow(number % LANES);
            if under_way.len() == LANES {
                result = self.home(under_way.drain(..LANES / 2), result, &mut ended);
            }
            result = match result.and(errand) {
                Ok(errand) if !lane.has_room_for(&errand.batch) => self
                    .home(under_way.drain(..), Ok(()), &mut ended)
                    .and_then(|()| self.run(&errand.steered, &errand.batch))
                    .and_then(|answers| ended(errand.about, errand.steered, answers)),
                Ok(errand) => self.send(lane, errand).map(|sent| under_way.push_back(sent)),
                Err(error) => Err(error),
            };
            if result.is_err() {
                break;
            }
        }
        self.home(under_way.drain(..), result, &mut ended)
    }

    fn send<'t, P>(&self, lane: Lane, errand: Errand<'t, P>) -> Result<UnderWay<'t, P>, Error> {
        let ends = self.prepare(&lane, &errand.steered, &errand.batch)?;
        let under_way = UnderWay { errand, lane, ends };
        let walk = under_way.walk();
        self.set_out(&walk, 0..walk.batch.entries.len(), &[])?;
        Ok(under_way)
    }

    /// Waits for all of these, in any case; the first error counts. The last of them first: waiting
    /// for one after the other we would be woken, and keep a processor from them, for each.
    fn home<'t, P>(
        &self,
        under_way: impl Iterator<Item = UnderWay<'t, P>>,
        mut result: Result<(), Error>,
        ended: &mut impl FnMut(P, Steered<'t>, Answers) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let all: Vec<UnderWay<'t, P>> = under_way.collect();
        let mut arrived: Vec<_> = all.iter().rev().map(|one| self.end(&one.walk())).collect();
        for one in all {
            let results = arrived.pop().expect("one for each");
            result = result.and(results).and_then(|results| {
                let answers = self.come_back(&one.walk(), results)?;
                ended(one.errand.about, one.errand.steered, answers)
            });
        }
        result
    }

    fn end(&self, walk: &Walk<'_>) -> Result<Vec<i64>, Error> {
        let mut results = Vec::with_capacity(walk.batch.entries.len());
        self.arrive(walk, 0..walk.batch.entries.len(), &mut results)?;
        Ok(results)
    }

    /// Puts the bytes of a batch into its lane, and for a program its way back. Says how it ends.
    pub(super) fn prepare(
        &self,
        lane: &Lane,
        steered: &Steered<'_>,
        batch: &Batch,
    ) -> Result<Option<blob::WayBack>, Error> {
        self.put_bytes(lane, batch);
        if self.dies_with_us() {
            return Ok(None);
        }
        if steered.way_back.get().is_none() {
            let made = WayBack::make(steered)?;
            steered.way_back.set(made).expect("it was not set, and nobody else is here");
        }
        let way_back = steered.way_back.get().expect("it was just set");
        let frame = self.address + lane.frame as u64;
        let put = |at, bytes: &[u8]| self.arena.memory.write(lane.frame + at, bytes);
        way_back.frame().write(frame, put);
        Ok(Some(blob::WayBack { signal: way_back.signal(), frame }))
    }

    fn put_bytes(&self, lane: &Lane, batch: &Batch) {
        self.arena.memory.write(lane.bytes.start, &batch.bytes);
        for &(at, to) in &batch.pointers {
            let address = self.bytes_address(lane, to).to_ne_bytes();
            self.arena.memory.write(lane.bytes.start + at, &address);
        }
    }

    /// Everything that the thread needs is in the arena: with its first step it goes all the way.
    fn set_out(&self, walk: &Walk<'_>, range: Range<usize>, results: &[i64]) -> Result<(), Error> {
        self.place(walk, range, results)?;
        walk.steered.thread().resume(go_on)
    }

    /// Up to the moment before its first step.
    pub(super) fn place(
        &self,
        walk: &Walk<'_>,
        range: Range<usize>,
        results: &[i64],
    ) -> Result<(), Error> {
        let Walk { lane, steered, batch, ends } = *walk;
        let count = range.len() as u64;
        self.arena.memory.write(lane.entries.start, &self.encode(lane, batch, range, results));
        let first = self.address + lane.entries.start as u64;
        let registers = blob::walking(steered.registers(), self.address, first, count, ends);
        let signal = ends.map_or(libc::SIGTRAP, |way_back| way_back.signal);
        steered.take(&registers, all_signals_but(signal))
    }

    pub(super) fn arrive(
        &self,
        walk: &Walk<'_>,
        range: Range<usize>,
        results: &mut Vec<i64>,
    ) -> Result<(), Error> {
        let Walk { lane, steered, batch, ends } = *walk;
        let first = self.address + lane.entries.start as u64;
        let length = range.len() * blob::ENTRY_BYTES;
        steered
            .thread()
            .wait_to(go_on, self.end_of_walk(steered, ends), steered.limit)
            .map_err(|error| unended_in(steered, error, first, &batch.entries[range]))?;
        let walked = self.arena.memory.read(lane.entries.start, length);
        results.extend(walked.chunks_exact(blob::ENTRY_BYTES).map(|entry| {
            let result = &entry[blob::RESULT_OFFSET..blob::RESULT_OFFSET + 8];
            i64::from_ne_bytes(result.try_into().expect("eight bytes"))
        }));
        Ok(())
    }

    fn come_back(&self, walk: &Walk<'_>, results: Vec<i64>) -> Result<Answers, Error> {
        // Other threads use the lane next, and the frame in it with it.
        if walk.ends.is_some() {
            walk.steered.put_back()?;
        }
        let (start, length) = (walk.lane.bytes.start, walk.batch.bytes.len());
        let answers = Answers { results, bytes: self.arena.memory.read(start, length) };
        answers.check(walk.batch)?;
        Ok(answers)
    }

    /// A signal of that number may come from outside or out of the queue at any time, but then it
    /// does not stand where the code has just sent it, or behind the trap. Another one that ended a
    /// walk would leave the calls behind it undone.
    fn end_of_walk(
        &self,
        steered: &Steered<'_>,
        ends: Option<blob::WayBack>,
    ) -> impl Fn(Event) -> bool {
        let (signal, offset) = match ends {
            None => (libc::SIGTRAP, blob::BEHIND_TRAP_OFFSET),
            Some(way_back) => (way_back.signal, blob::WAY_BACK_OFFSET),
        };
        let (tid, end) = (steered.thread().tid(), self.address + offset);
        move |event| {
            event == Event::Signal(signal)
                && ptrace::registers(tid).is_ok_and(|registers| registers.rip == end)
        }
    }

    /// The entries of `range`; `results` are those of all entries before it.
    fn encode(&self, lane: &Lane, batch: &Batch, range: Range<usize>, results: &[i64]) -> Vec<u8> {
        let from = range.start;
        let mut entries = vec![0_u8; range.len() * blob::ENTRY_BYTES];
        let mut put = |offset: usize, word: u64| {
            entries[offset..offset + 8].copy_from_slice(&word.to_ne_bytes());
        };
        let mut uses = vec![0_usize; range.len()];
        for (index, entry) in batch.entries[range].iter().enumerate() {
            let start = index * blob::ENTRY_BYTES;
            put(start, entry.number.cast_unsigned());
            // What a call that is never made seems to have said.
            put(start + blob::RESULT_OFFSET, i64::from(-libc::ENOSYS).cast_unsigned());
            for (position, arg) in entry.args.iter().enumerate() {
                let at = start + blob::ARGUMENT_OFFSET + position * 8;
                match *arg {
                    Arg::Value(value) => put(at, value),
                    Arg::Bytes(Bytes { offset, .. }) => put(at, self.bytes_address(lane, offset)),
                    Arg::Result(call) if call.0 < from => put(at, results[call.0].cast_unsigned()),
                    Arg::Result(call) => {
                        let earlier = call.0 - from;
                        assert!(earlier < index, "a result is used after its call");
                        let store = blob::RESULT_OFFSET + 8 + uses[earlier] * 8;
                        assert!(store < blob::ENTRY_BYTES, "a result is used at most twice");
                        uses[earlier] += 1;
                        let address = self.address + (lane.entries.start + at) as u64;
                        put(earlier * blob::ENTRY_BYTES + store, address);
                    }
                }
            }
        }
        entries
    }

    pub(super) fn bytes_address(&self, lane: &Lane, offset: usize) -> u64 {
        self.address + (lane.bytes.start + offset) as u64
    }
}

fn go_on(tid: i32) -> io::Result<()> {
    ptrace::cont(tid, 0)
}

/// The code holds the address of the entry that it is at in rbx.
fn unended_in(steered: &Steered<'_>, error: Error, first: u64, entries: &[Entry]) -> Error {
    let at = steered.thread().registers().map_or(0, |registers| registers.rbx);
    let index = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX) / blob::ENTRY_BYTES;
    let Some(entry) = entries.get(index) else { return error };
    let (action, object) = match entry.action {
        Some(action) => (action, entry.object.clone()),
        None => ("steer", steered.thread().object()),
    };
    steered.unended(error, entry.number, action, object)
}
