//! How a thread's reads and writes are ranked by the block layer, ioprio_set(2).

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct IoPriority;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Class, hint and level as the kernel packs them; 0 follows the nice value.
    #[prost(uint64, tag = "1")]
    packed: u64,
}

const IOPRIO_WHO_PROCESS: i32 = 1;

impl Aspect for IoPriority {
    const NAME: &'static str = "I/O priority";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = Call;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        batch.try_call(libc::SYS_ioprio_get, args![IOPRIO_WHO_PROCESS, 0])
    }

    fn read(subject: &Subject<'_>, call: Call, answers: &Answers) -> Result<Image, Error> {
        Ok(Image { packed: answers.result(call).on("read", || subject.object(Self::NAME))? })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        let args = args![IOPRIO_WHO_PROCESS, 0, image.packed];
        batch.call("restore", &object, libc::SYS_ioprio_set, args);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, in_thread, set};
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        alone(|| {
            let rank = |packed: u64| {
                move |batch: &mut Batch| {
                    set(batch, libc::SYS_ioprio_set, args![IOPRIO_WHO_PROCESS, 0, packed]);
                }
            };
            // Best effort 7, then idle.
            let image = in_thread(|| comes_back::<IoPriority>(rank(2 << 13 | 7), rank(3 << 13)));
            assert_eq!(image.packed, 2 << 13 | 7);
        });
    }
}
