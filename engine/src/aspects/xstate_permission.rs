//! Permission to use the CPU's large registers (AMX tiles), arch_prctl ARCH_REQ_XCOMP_PERM, Linux
//! 5.16, x86-64 only. Of a process; asked for once, never given back.
//!
//! Registers that hold tiles can only be set in a thread whose process has it.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::Error;

pub(super) struct XstatePermission;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// One bit a state component, those that need no permission included.
    #[prost(uint64, tag = "1")]
    permitted: u64,
}

const ARCH_GET_XCOMP_PERM: i32 = 0x1022;
const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
/// The only component that needs a permission: the tiles' contents.
const XFEATURE_XTILE_DATA: u32 = 18;

impl Aspect for XstatePermission {
    const NAME: &'static str = "extended register permission";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = (Call, Bytes);

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        let room = batch.room(8);
        (batch.try_call(libc::SYS_arch_prctl, args![ARCH_GET_XCOMP_PERM, room]), room)
    }

    fn read(
        _subject: &Subject<'_>,
        (call, room): Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        // A kernel that does not know the question gives no such permission.
        let known = answers.result(call).is_ok();
        Ok(Image { permitted: if known { answers.u64_at(room, 0) } else { 0 } })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        if image.permitted & (1 << XFEATURE_XTILE_DATA) != 0 {
            let object = subject.object(Self::NAME);
            let args = args![ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA];
            batch.call("ask for", &object, libc::SYS_arch_prctl, args);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, capture, restore};
    use super::*;

    #[test]
    fn is_asked_for_again_or_named_where_the_cpu_has_no_tiles() {
        alone(|| {
            let plain = capture::<XstatePermission>();
            restore::<XstatePermission>(&plain).unwrap();
            assert_eq!(capture::<XstatePermission>(), plain);
            let tiles = Image { permitted: plain.permitted | 1 << XFEATURE_XTILE_DATA };
            match restore::<XstatePermission>(&tiles) {
                Ok(()) => assert_eq!(capture::<XstatePermission>(), tiles),
                Err(error) => assert!(error.to_string().starts_with("ask for extended register")),
            }
        });
    }
}
