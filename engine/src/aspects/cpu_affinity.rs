//! Which CPUs a thread may run on, sched_setaffinity(2).
//!
//! A thread that may run on all of the source's CPUs may run on all of the destination's, be they
//! more. One that is bound keeps those of its CPUs that the destination has; if it has none of
//! them it may run anywhere: where it runs is about speed, not about meaning. What a cpuset cgroup
//! took away looks like a binding of the thread's own.

use super::{Aspect, Scope, Subject, mask};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(super) struct CpuAffinity;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// One bit a CPU; nothing: all.
    #[prost(fixed64, repeated, tag = "1")]
    cpus: Vec<u64>,
}

/// For 8192 CPUs, the most that Linux can be built for. The kernel refuses less room than it has
/// CPUs.
const MASK_BYTES: usize = 1024;

impl Aspect for CpuAffinity {
    const NAME: &'static str = "CPU affinity";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(MASK_BYTES);
        (batch.try_call(libc::SYS_sched_getaffinity, args![0, MASK_BYTES, room]), room)
    }

    fn read(
        subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        let cpus = mask::from_bytes(answers.bytes(room));
        let bound = !mask::covers(&cpus, &online());
        Ok(Image { cpus: if bound { cpus } else { Vec::new() } })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        // The new thread was born with the agent's, which may be bound itself.
        let all = batch.bytes(&[0xff; MASK_BYTES]);
        let object = subject.object(Self::NAME);
        batch.call("widen", &object, libc::SYS_sched_setaffinity, args![0, MASK_BYTES, all]);
        if image.cpus.is_empty() {
            return Ok(());
        }
        if image.cpus.len() * 8 > MASK_BYTES {
            let why = format!("{} words of CPUs are too many", image.cpus.len());
            return Err(Error::invalid("restore", object, why));
        }
        let bytes = batch.bytes(&mask::to_bytes(&image.cpus));
        // The kernel takes those that exist, and fails with EINVAL if none does.
        batch.try_call(libc::SYS_sched_setaffinity, args![0, bytes.length, bytes]);
        Ok(())
    }
}

/// The CPUs of this host. They can change, so they are not remembered for long; five hundred
/// threads are asked within milliseconds, and the file costs 5 us.
fn online() -> Vec<u64> {
    static SEEN: Mutex<Option<(Instant, Vec<u64>)>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*seen {
        Some((at, cpus)) if at.elapsed() < Duration::from_secs(1) => cpus.clone(),
        _ => {
            let text = std::fs::read_to_string("/sys/devices/system/cpu/online");
            // Without sysfs every thread counts as unbound.
            let cpus = text.ok().and_then(|text| mask::from_list(&text)).unwrap_or_default();
            *seen = Some((Instant::now(), cpus.clone()));
            cpus
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, in_thread, restore, set};
    use super::*;

    fn bind(cpus: u64) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let bytes = batch.bytes(&cpus.to_ne_bytes());
            set(batch, libc::SYS_sched_setaffinity, args![0, 8, bytes]);
        }
    }

    /// A CPU of this host that a thread can be bound to; with one CPU nothing can be bound.
    fn one() -> Option<u64> {
        let first = *online().first()?;
        (online().len() > 1 || first.count_ones() > 1).then_some(1 << first.trailing_zeros())
    }

    #[test]
    fn comes_back_on_its_cpu() {
        alone(|| {
            let Some(one) = one() else { return crate::skipped::skip("this host has one CPU") };
            let image =
                in_thread(|| comes_back::<CpuAffinity>(bind(one), bind(u64::MAX)));
            assert_eq!(image.cpus, [one]);
        });
    }

    #[test]
    fn of_all_cpus_is_all_cpus_again() {
        alone(|| {
            let Some(one) = one() else { return crate::skipped::skip("this host has one CPU") };
            let image = in_thread(|| comes_back::<CpuAffinity>(bind(u64::MAX), bind(one)));
            assert_eq!(image.cpus, []);
        });
    }

    #[test]
    fn to_cpus_that_are_not_there_is_dropped() {
        alone(|| {
            let mut far = vec![0; 127];
            far.push(1 << 63);
            restore::<CpuAffinity>(&Image { cpus: far }).unwrap();
            assert_eq!(capture::<CpuAffinity>(), Image { cpus: vec![] });
            assert!(restore::<CpuAffinity>(&Image { cpus: vec![1; 129] }).is_err());
        });
    }
}
