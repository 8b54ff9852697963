//! The execution domain of a thread: which of the kernel's old habits it wants, personality(2).

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct Personality;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint32, tag = "1")]
    persona: u32,
}

/// Changes nothing, only answers.
const QUERY: u32 = u32::MAX;

impl Aspect for Personality {
    const NAME: &'static str = "personality";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = Call;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        batch.try_call(libc::SYS_personality, args![QUERY])
    }

    fn read(subject: &Subject<'_>, call: Call, answers: &Answers) -> Result<Image, Error> {
        let persona = answers.result(call).on("read", || subject.object(Self::NAME))?;
        let persona = u32::try_from(persona).map_err(|e| {
            Error::invalid("understand", subject.object(Self::NAME), e.to_string())
        })?;
        Ok(Image { persona })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        batch.call("restore", &object, libc::SYS_personality, args![image.persona]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, set};
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        alone(|| {
            let persona = libc::ADDR_NO_RANDOMIZE | libc::SHORT_INODE;
            let image = comes_back::<Personality>(
                |batch| set(batch, libc::SYS_personality, args![persona]),
                |batch| set(batch, libc::SYS_personality, args![0]),
            );
            assert_eq!(image.persona, persona.cast_unsigned());
        });
    }
}
