//! The head of the list of locks that the kernel releases when a thread dies, see
//! get_robust_list(2).

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct RobustList;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint64, tag = "1")]
    head: u64,
    #[prost(uint64, tag = "2")]
    length_bytes: u64,
}

impl Aspect for RobustList {
    const NAME: &'static str = "robust list";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(16);
        let length = Bytes { offset: room.offset + 8, length: 8 };
        // Thread id 0 is the calling thread, whatever namespace it is in.
        let call = batch.try_call(libc::SYS_get_robust_list, args![0, room, length]);
        (call, room)
    }

    fn read(
        subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        Ok(Image { head: answers.u64_at(room, 0), length_bytes: answers.u64_at(room, 1) })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        if image.head != 0 {
            let object = subject.object(Self::NAME);
            let args = args![image.head, image.length_bytes];
            batch.call("restore", &object, libc::SYS_set_robust_list, args);
        }
        Ok(())
    }

    fn touched(image: &Image) -> Vec<(u64, u64)> {
        if image.head == 0 { Vec::new() } else { vec![(image.head, image.length_bytes)] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, in_thread, set};
    use super::*;

    #[test]
    fn comes_back_with_its_head() {
        alone(|| {
            let image = in_thread(|| {
                // An empty list points at itself; these are never followed, because the head that
                // the C library registered is not put back and the thread dies without locks.
                let heads = Box::leak(Box::new([[0_u64; 3]; 2]));
                let [first, second] = [0, 1].map(|i| std::ptr::from_mut(&mut heads[i]).addr());
                heads[0][0] = first as u64;
                heads[1][0] = second as u64;
                comes_back::<RobustList>(
                    |batch| set(batch, libc::SYS_set_robust_list, args![first, 24]),
                    |batch| set(batch, libc::SYS_set_robust_list, args![second, 24]),
                )
            });
            assert_ne!(image.head, 0);
            assert_eq!(image.length_bytes, 24);
        });
    }
}
