//! The stack that a thread's signal handlers run on, sigaltstack(2).
//!
//! While a handler runs on a stack with SS_AUTODISARM (Linux 4.7) the kernel has none: it is
//! captured as disabled, and the handler's return brings it back from the frame in memory.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct AlternateStack;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint64, tag = "1")]
    start: u64,
    #[prost(uint64, tag = "2")]
    size_bytes: u64,
    /// SS_DISABLE and SS_AUTODISARM.
    #[prost(uint32, tag = "3")]
    flags: u32,
}

/// A signal frame with all vector registers needs about 12 KiB; whole stacks of megabytes are
/// left to be fetched by fault.
const ALTERNATE_STACK_BYTES_MAX: u64 = 64 << 10;

/// Not in the libc crate.
const SS_AUTODISARM: u32 = 1 << 31;
const SS_DISABLE: u32 = libc::SS_DISABLE.cast_unsigned();
/// stack_t: address, flags, padding, size.
const STACK_BYTES: usize = 24;

impl Aspect for AlternateStack {
    const NAME: &'static str = "alternate stack";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(STACK_BYTES);
        (batch.try_call(libc::SYS_sigaltstack, args![0, room]), room)
    }

    fn read(
        subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        Ok(Image {
            start: answers.u64_at(room, 0),
            // SS_ONSTACK only says where the stack pointer was: it comes back with the registers.
            flags: answers.u32_at(room, 2) & (SS_DISABLE | SS_AUTODISARM),
            size_bytes: answers.u64_at(room, 2),
        })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let bytes = batch.bytes(&kernel_bytes(image));
        let object = subject.object(Self::NAME);
        batch.call("restore", &object, libc::SYS_sigaltstack, args![bytes, 0]);
        Ok(())
    }

    fn touched(image: &Image) -> Vec<(u64, u64)> {
        vec![(image.start, image.size_bytes.min(ALTERNATE_STACK_BYTES_MAX))]
    }
}

fn kernel_bytes(image: &Image) -> Vec<u8> {
    [image.start, u64::from(image.flags), image.size_bytes].map(u64::to_ne_bytes).concat()
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, in_thread, restore, set};
    use super::*;

    fn put(image: Image) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let bytes = batch.bytes(&kernel_bytes(&image));
            set(batch, libc::SYS_sigaltstack, args![bytes, 0]);
        }
    }

    #[test]
    fn comes_back_where_it_was() {
        alone(|| {
            let stack = Image { start: 0x7000_0000, size_bytes: 65536, flags: SS_AUTODISARM };
            let none = Image { start: 0, size_bytes: 0, flags: SS_DISABLE };
            // Disabled in the end, because the C library unmaps what it finds when threads end.
            let image = in_thread(|| {
                let before = capture::<AlternateStack>();
                let image = comes_back::<AlternateStack>(put(stack.clone()), put(none));
                restore::<AlternateStack>(&before).unwrap();
                image
            });
            assert_eq!(image, stack);
        });
    }

    #[test]
    fn that_is_disabled_stays_disabled() {
        alone(|| {
            let none = Image { start: 0, size_bytes: 0, flags: SS_DISABLE };
            let stack = Image { start: 0x7000_0000, size_bytes: 65536, flags: 0 };
            in_thread(|| {
                let before = capture::<AlternateStack>();
                comes_back::<AlternateStack>(put(none), put(stack));
                restore::<AlternateStack>(&before).unwrap();
            });
        });
    }
}
