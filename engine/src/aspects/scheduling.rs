//! How a thread's CPU time is ranked: policy, nice value, priority, deadline, sched_setattr(2).
//!
//! Utilisation clamps (Linux 5.3) are hints and are dropped where the destination does not know
//! them. A slice of its own (Linux 6.12, `sched_runtime` of a normal thread) is kept; the kernel
//! shows the host's default in the same place, so a slice like that of our own process is none.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct Scheduling;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint32, tag = "1")]
    policy: u32,
    /// SCHED_FLAG_RESET_ON_FORK and the deadline flags.
    #[prost(uint64, tag = "2")]
    flags: u64,
    #[prost(sint32, tag = "3")]
    nice: i32,
    #[prost(uint32, tag = "4")]
    priority: u32,
    /// Of a normal thread: its slice, 0 for the host's default.
    #[prost(uint64, tag = "5")]
    runtime_ns: u64,
    #[prost(uint64, tag = "6")]
    deadline_ns: u64,
    #[prost(uint64, tag = "7")]
    period_ns: u64,
    #[prost(message, optional, tag = "8")]
    clamp: Option<Clamp>,
}

/// Bounds of the utilisation that the scheduler assumes, 0 to 1024.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Clamp {
    #[prost(uint32, tag = "1")]
    least: u32,
    #[prost(uint32, tag = "2")]
    most: u32,
}

/// struct sched_attr of Linux 5.3. An older kernel fills less and takes more if it is zero.
const ATTR_BYTES: u32 = 56;
const CLAMP_MOST: u32 = 1024;
/// SCHED_FLAG_KEEP_POLICY | KEEP_PARAMS | UTIL_CLAMP_MIN | UTIL_CLAMP_MAX.
const ONLY_CLAMP: u64 = 0x78;

#[derive(Debug)]
pub(super) struct Asked {
    own: Call,
    attr: Bytes,
    agents: Call,
    agents_attr: Bytes,
}

impl Aspect for Scheduling {
    const NAME: &'static str = "scheduling";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = Asked;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let (own, attr) = ask_of(0, batch);
        let (agents, agents_attr) = ask_of(std::process::id(), batch);
        Asked { own, attr, agents, agents_attr }
    }

    fn read(subject: &Subject<'_>, asked: Asked, answers: &Answers) -> Result<Image, Error> {
        answers.result(asked.own).on("read", || subject.object(Self::NAME))?;
        let mut image = Image::answered(asked.attr, answers);
        let agents = Image::answered(asked.agents_attr, answers);
        if image.is_fair() {
            // An agent that cannot be asked, or that is not a normal thread, tells no default.
            let told = answers.raw(asked.agents) == 0 && agents.is_fair();
            if !told || image.runtime_ns == agents.runtime_ns {
                image.runtime_ns = 0;
            }
        }
        Ok(image)
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        let attr = batch.bytes(&image.kernel_bytes(image.flags, Clamp::default()));
        batch.call("restore", &object, libc::SYS_sched_setattr, args![0, attr, 0]);
        if let Some(clamp) = image.clamp {
            let attr = batch.bytes(&image.kernel_bytes(ONLY_CLAMP, clamp));
            batch.try_call(libc::SYS_sched_setattr, args![0, attr, 0]);
        }
        Ok(())
    }
}

fn ask_of(tid: u32, batch: &mut Batch) -> (Call, Bytes) {
    let room = batch.room(ATTR_BYTES as usize);
    (batch.try_call(libc::SYS_sched_getattr, args![tid, room, ATTR_BYTES, 0]), room)
}

impl Image {
    fn answered(attr: Bytes, answers: &Answers) -> Self {
        let clamp = Clamp { least: answers.u32_at(attr, 12), most: answers.u32_at(attr, 13) };
        // A kernel without clamps answers zeros.
        let none = clamp.least == 0 && [0, CLAMP_MOST].contains(&clamp.most);
        Self {
            policy: answers.u32_at(attr, 1),
            flags: answers.u64_at(attr, 1),
            nice: answers.u32_at(attr, 4).cast_signed(),
            priority: answers.u32_at(attr, 5),
            runtime_ns: answers.u64_at(attr, 3),
            deadline_ns: answers.u64_at(attr, 4),
            period_ns: answers.u64_at(attr, 5),
            clamp: (!none).then_some(clamp),
        }
    }

    fn kernel_bytes(&self, flags: u64, clamp: Clamp) -> Vec<u8> {
        let head = [ATTR_BYTES, self.policy].map(u32::to_ne_bytes).concat();
        let rank = [self.nice.cast_unsigned(), self.priority].map(u32::to_ne_bytes).concat();
        let times = [self.runtime_ns, self.deadline_ns, self.period_ns];
        let times = times.map(u64::to_ne_bytes).concat();
        let clamp = [clamp.least, clamp.most].map(u32::to_ne_bytes).concat();
        [head, flags.to_ne_bytes().to_vec(), rank, times, clamp].concat()
    }

    fn is_fair(&self) -> bool {
        [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE]
            .map(i32::cast_unsigned)
            .contains(&self.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, in_thread, restore, set};
    use super::*;

    fn put(image: Image) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let attr = batch.bytes(&image.kernel_bytes(image.flags, Clamp::default()));
            set(batch, libc::SYS_sched_setattr, args![0, attr, 0]);
        }
    }

    fn round_trip(image: Image) {
        let other = Image { nice: 3, ..Image::default() };
        in_thread(|| assert_eq!(comes_back::<Scheduling>(put(image.clone()), put(other)), image));
    }

    #[test]
    fn comes_back_nice() {
        alone(|| round_trip(Image { policy: 3, nice: -7, flags: 1, ..Image::default() }));
    }

    #[test]
    fn comes_back_realtime() {
        alone(|| round_trip(Image { policy: 1, priority: 2, ..Image::default() }));
    }

    #[test]
    fn comes_back_with_a_slice_of_its_own_and_without_one() {
        alone(|| {
            let slice = Image { runtime_ns: 7_000_000, ..Image::default() };
            in_thread(|| {
                assert_eq!(capture::<Scheduling>().runtime_ns, 0, "the default is not recorded");
                restore::<Scheduling>(&slice).unwrap();
                let back = capture::<Scheduling>();
                // Linux before 6.12 has no slices.
                assert!(back == slice || back == Image::default(), "{back:?}");
            });
        });
    }

    #[test]
    fn keeps_going_where_clamps_are_unknown() {
        alone(|| {
            let clamp = Some(Clamp { least: 100, most: 900 });
            let image = Image { nice: 4, clamp, ..Image::default() };
            in_thread(|| {
                restore::<Scheduling>(&image).unwrap();
                let back = capture::<Scheduling>();
                assert_eq!(back.nice, 4);
                assert!(back.clamp == clamp || back.clamp.is_none(), "{back:?}");
            });
        });
    }

    #[test]
    fn of_an_unknown_policy_is_named() {
        alone(|| {
            let error = restore::<Scheduling>(&Image { policy: 99, ..Image::default() });
            assert!(error.unwrap_err().to_string().starts_with("restore scheduling of thread"));
        });
    }
}
