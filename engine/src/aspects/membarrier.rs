//! Which expedited barriers a process has registered for, membarrier(2). Of its memory, so shared
//! by all who share that.
//!
//! Runtimes register once at their start and abort when the barrier later fails with EPERM.
//! MEMBARRIER_CMD_GET_REGISTRATIONS is Linux 6.3. An older kernel does not tell, and then
//! everything is registered: it costs little, and a program cannot be harmed by a barrier that it
//! never asks for.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Call};
use crate::error::Error;

pub(super) struct Membarrier;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// One bit a registering command; none: the source's kernel does not tell.
    #[prost(uint64, optional, tag = "1")]
    registered: Option<u64>,
}

/// Newer than the libc crate's list.
const GET_REGISTRATIONS: i32 = 1 << 9;
/// Global, private, private with core serialisation, private with rseq.
const REGISTERING: [u64; 4] = [1 << 2, 1 << 4, 1 << 6, 1 << 8];

impl Aspect for Membarrier {
    const NAME: &'static str = "memory barriers";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = Call;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        batch.try_call(libc::SYS_membarrier, args![GET_REGISTRATIONS, 0, 0])
    }

    fn read(_subject: &Subject<'_>, call: Call, answers: &Answers) -> Result<Image, Error> {
        Ok(Image { registered: answers.result(call).ok() })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        match image.registered {
            Some(registered) => {
                if registered & !REGISTERING.iter().sum::<u64>() != 0 {
                    let why = format!("commands {registered:#x} are not known");
                    return Err(Error::invalid("register", object, why));
                }
                for command in REGISTERING.into_iter().filter(|bit| registered & bit != 0) {
                    batch.call("register", &object, libc::SYS_membarrier, args![command, 0, 0]);
                }
            }
            None => {
                for command in REGISTERING {
                    batch.try_call(libc::SYS_membarrier, args![command, 0, 0]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, restore};
    use super::*;

    #[test]
    fn are_registered_again() {
        alone(|| {
            let before = capture::<Membarrier>();
            let image = Image { registered: Some((1 << 2) | (1 << 4)) };
            restore::<Membarrier>(&image).unwrap();
            let expected = before.registered.and(image.registered);
            assert_ne!(before.registered, image.registered);
            assert_eq!(capture::<Membarrier>().registered, expected);
        });
    }

    #[test]
    fn that_were_not_told_are_all_registered() {
        alone(|| {
            restore::<Membarrier>(&Image { registered: None }).unwrap();
            // MEMBARRIER_CMD_PRIVATE_EXPEDITED: EPERM without a registration.
            let barrier = |batch: &mut Batch| {
                super::super::trial::set(batch, libc::SYS_membarrier, args![1 << 3, 0, 0]);
            };
            super::super::trial::run(barrier);
        });
    }

    #[test]
    fn of_an_unknown_sort_are_an_error() {
        alone(|| {
            assert!(restore::<Membarrier>(&Image { registered: Some(1) }).is_err());
            assert!(restore::<Membarrier>(&Image { registered: Some(u64::MAX) }).is_err());
        });
    }
}
