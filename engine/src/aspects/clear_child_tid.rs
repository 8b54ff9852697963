//! The word that the kernel clears, and wakes, when a thread dies: what pthread_join(3) waits on.
//!
//! Read by PR_GET_TID_ADDRESS, Linux 3.5 with CONFIG_CHECKPOINT_RESTORE; set_tid_address(2).

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct ClearChildTid;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Zero: nobody waits.
    #[prost(uint64, tag = "1")]
    address: u64,
}

impl Aspect for ClearChildTid {
    const NAME: &'static str = "clear-child-tid address";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(8);
        (batch.try_call(libc::SYS_prctl, args![libc::PR_GET_TID_ADDRESS, room]), room)
    }

    fn read(
        subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        Ok(Image { address: answers.u64_at(room, 0) })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        batch.call("restore", &object, libc::SYS_set_tid_address, args![image.address]);
        Ok(())
    }

    fn touched(image: &Image) -> Vec<(u64, u64)> {
        vec![(image.address, 4)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, comes_back, set};
    use super::*;

    #[test]
    fn comes_back_at_its_address() {
        alone(|| {
            let before = capture::<ClearChildTid>();
            assert_ne!(before.address, 0, "the C library registers one in every thread");
            let image = comes_back::<ClearChildTid>(
                |_| {},
                |batch| set(batch, libc::SYS_set_tid_address, args![0]),
            );
            assert_eq!(image, before);
        });
    }
}
