//! The permission bits that new files do not get, umask(2). Shared by the threads of a process.
//!
//! No call reads it without changing it, and capture only reads: it comes from the `Umask` field
//! of `/proc/PID/status`, Linux 4.7, read while the process stands.

use super::{Aspect, Scope, Subject, field};
use crate::args;
use crate::batch::{Answers, Batch};
use crate::error::Error;

pub(super) struct Umask;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(uint32, tag = "1")]
    mask: u32,
}

impl Aspect for Umask {
    const NAME: &'static str = "umask";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = ();

    fn ask(_subject: &Subject<'_>, _batch: &mut Batch) {}

    fn read(subject: &Subject<'_>, (): (), _answers: &Answers) -> Result<Image, Error> {
        let mask = parse(subject.status).ok_or_else(|| {
            Error::invalid("read", subject.object(Self::NAME), "status has no octal Umask")
        })?;
        Ok(Image { mask })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        batch.call("restore", &object, libc::SYS_umask, args![image.mask]);
        Ok(())
    }
}

pub(super) fn parse(status: &str) -> Option<u32> {
    u32::from_str_radix(field(status, "Umask")?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, set};
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        alone(|| {
            let image = comes_back::<Umask>(
                |batch| set(batch, libc::SYS_umask, args![0o137]),
                |batch| set(batch, libc::SYS_umask, args![0o022]),
            );
            assert_eq!(image.mask, 0o137);
        });
    }

    #[test]
    fn is_octal_and_may_be_missing() {
        assert_eq!(parse("Name:\tcat\nUmask:\t0027\nState:\tR\n"), Some(0o027));
        assert_eq!(parse("Name:\tUmask: 1\nUmask:\t0099\n"), None);
        assert_eq!(parse(""), None);
    }
}
