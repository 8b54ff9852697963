//! What a process may use, getrlimit(2): sixteen pairs of a soft and a hard limit.
//!
//! To raise a hard limit takes CAP_SYS_RESOURCE, and RLIMIT_NOFILE never goes above
//! `fs.nr_open`: where the destination cannot give what the source gave, restoring fails and names
//! the limit. A hard limit that is there already needs nothing.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct Limits;

/// In the order of [`NAMES`], whose numbers are the same on every architecture but Alpha, MIPS
/// and SPARC.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    limits: Vec<Limit>,
}

/// All bits set is no limit.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Limit {
    #[prost(fixed64, tag = "1")]
    soft: u64,
    #[prost(fixed64, tag = "2")]
    hard: u64,
}

const NAMES: [&str; 16] = [
    "limit of CPU time",
    "limit of file size",
    "limit of data size",
    "limit of stack size",
    "limit of core dump size",
    "limit of resident memory",
    "limit of processes",
    "limit of open files",
    "limit of locked memory",
    "limit of address space",
    "limit of file locks",
    "limit of pending signals",
    "limit of message queues",
    "limit of nice priority",
    "limit of realtime priority",
    "limit of realtime CPU time",
];

impl Aspect for Limits {
    const NAME: &'static str = "limits";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = Vec<(Call, Bytes)>;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let ask = |resource: usize| {
            let room = batch.room(16);
            (batch.try_call(libc::SYS_prlimit64, args![0, resource, 0, room]), room)
        };
        (0..NAMES.len()).map(ask).collect()
    }

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        let mut limits = Vec::new();
        for ((call, room), name) in asked.into_iter().zip(NAMES) {
            answers.result(call).on("read", || subject.object(name))?;
            limits.push(Limit { soft: answers.u64_at(room, 0), hard: answers.u64_at(room, 1) });
        }
        Ok(Image { limits })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        if image.limits.len() != NAMES.len() {
            let why = format!("there are {} instead of {}", image.limits.len(), NAMES.len());
            return Err(Error::invalid("restore", subject.object(Self::NAME), why));
        }
        for (resource, (limit, name)) in image.limits.iter().zip(NAMES).enumerate() {
            let bytes = batch.bytes(&[limit.soft, limit.hard].map(u64::to_ne_bytes).concat());
            let args = args![0, resource, bytes, 0];
            batch.call("restore", &subject.object(name), libc::SYS_prlimit64, args);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, restore, set};
    use super::*;

    const OPEN_FILES: usize = 7;

    fn limit(resource: usize, soft: u64, hard: u64) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let bytes = batch.bytes(&[soft, hard].map(u64::to_ne_bytes).concat());
            set(batch, libc::SYS_prlimit64, args![0, resource, bytes, 0]);
        }
    }

    #[test]
    fn come_back_where_they_were_lowered_and_where_they_are_endless() {
        alone(|| {
            let hard = capture::<Limits>().limits[OPEN_FILES].hard;
            let image = comes_back::<Limits>(
                limit(OPEN_FILES, 123, hard),
                limit(OPEN_FILES, 456, hard),
            );
            assert_eq!(image.limits[OPEN_FILES], Limit { soft: 123, hard });
            let text = std::fs::read_to_string("/proc/self/limits").unwrap();
            assert!(text.contains("Max open files            123 "), "{text}");
            assert!(image.limits.iter().any(|limit| limit.hard == u64::MAX));
        });
    }

    #[test]
    fn that_the_destination_cannot_give_are_named() {
        alone(|| {
            let mut image = capture::<Limits>();
            image.limits[OPEN_FILES] = Limit { soft: 1, hard: u64::MAX };
            let error = restore::<Limits>(&image).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("restore limit of open files of thread"), "{text}");
            image.limits.pop();
            assert!(restore::<Limits>(&image).is_err());
        });
    }
}
