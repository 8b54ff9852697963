//! The name of a thread: `comm`, at most fifteen bytes, PR_SET_NAME in prctl(2).

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};
use prost::Message as _;

pub(super) struct Name;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Without the final zero. Any bytes: a name need not be text.
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
}

impl Name {
    /// In an encoded image.
    pub(super) fn called(image: &[u8]) -> Option<Vec<u8>> {
        Image::decode(image).ok().map(|image| image.name)
    }
}

/// TASK_COMM_LEN with its final zero, the same on every kernel.
const ROOM_BYTES: usize = 16;

impl Aspect for Name {
    const NAME: &'static str = "name";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(ROOM_BYTES);
        (batch.try_call(libc::SYS_prctl, args![libc::PR_GET_NAME, room]), room)
    }

    fn read(
        subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        answers.result(call).on("read", || subject.object(Self::NAME))?;
        let name = answers.bytes(room).iter().copied().take_while(|&byte| byte != 0);
        Ok(Image { name: name.collect() })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let name = batch.string(&image.name);
        let object = subject.object(Self::NAME);
        batch.call("restore", &object, libc::SYS_prctl, args![libc::PR_SET_NAME, name]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, set};
    use super::*;

    fn rename(name: &'static [u8]) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let name = batch.string(name);
            set(batch, libc::SYS_prctl, args![libc::PR_SET_NAME, name]);
        }
    }

    #[test]
    fn comes_back_with_bytes_that_are_no_text() {
        alone(|| {
            let image = comes_back::<Name>(rename(b"a\xff) (name 123456"), rename(b"other"));
            assert_eq!(image.name, b"a\xff) (name 12345");
            let comm = std::fs::read("/proc/thread-self/comm").unwrap();
            assert_eq!(comm, b"a\xff) (name 12345\n");
        });
    }
}
