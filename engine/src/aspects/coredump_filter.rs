//! Which kinds of mapping a core dump of a process contains, core(5). Of its memory.
//!
//! Written through `/proc/PID/coredump_filter`, by us.

use super::{Aspect, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::{Error, OnObject as _};
use std::io;

pub(super) struct CoredumpFilter;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// One bit a kind.
    #[prost(uint32, tag = "1")]
    kinds: u32,
}

const FILE: &str = "coredump_filter";

impl Aspect for CoredumpFilter {
    const NAME: &'static str = "core dump filter";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = io::Result<String>;

    fn ask(subject: &Subject<'_>, _batch: &mut Batch) -> Self::Asked {
        subject.text(FILE)
    }

    fn read(subject: &Subject<'_>, text: Self::Asked, _answers: &Answers) -> Result<Image, Error> {
        let text = text.on("read", || subject.object(Self::NAME))?;
        let kinds = parse(&text).ok_or_else(|| {
            Error::invalid("read", subject.object(Self::NAME), format!("{text:?} is not hex"))
        })?;
        Ok(Image { kinds })
    }

    fn restore(_image: &Image, _subject: &Subject<'_>, _batch: &mut Batch) -> Result<(), Error> {
        Ok(())
    }

    fn restore_outside(image: &Image, subject: &Subject<'_>) -> Result<(), Error> {
        std::fs::write(subject.path(FILE), format!("{:#x}", image.kinds))
            .on("restore", || subject.object(Self::NAME))
    }
}

pub(super) fn parse(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back};
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        alone(|| {
            let write = |text| std::fs::write("/proc/self/coredump_filter", text).unwrap();
            let image = comes_back::<CoredumpFilter>(|_| write("0x7f"), |_| write("0x33"));
            assert_eq!(image.kinds, 0x7f);
        });
    }

    #[test]
    fn is_hexadecimal_without_a_prefix() {
        assert_eq!(parse("00000033\n"), Some(0x33));
        assert_eq!(parse("\n"), None);
    }
}
