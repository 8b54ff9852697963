//! Settings of prctl(2) that all threads of a process share.
//!
//! MDWE (Linux 6.3) forbids code that can be written and cannot be taken back, so it is set when
//! every mapping is there. PR_THP_DISABLE_EXCEPT_ADVISED is Linux 6.18, memory merging 6.4.

use super::flags::{self, Answer, Flag, Image, plain};
use super::{Aspect, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::Error;

pub(super) struct ProcessFlags;

const PR_SET_MEMORY_MERGE: i32 = 67;
const PR_GET_MEMORY_MERGE: i32 = 68;

static FLAGS: [Flag; 4] = [
    Flag {
        tag: 1,
        name: "child subreaper flag",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_CHILD_SUBREAPER],
        answer: Answer::Written,
        setting: |value| plain(libc::PR_SET_CHILD_SUBREAPER, value),
        may_fail: |_| false,
    },
    Flag {
        tag: 2,
        name: "huge page switch",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_THP_DISABLE],
        answer: Answer::Returned,
        // Bit 0 is the switch, the others are its flags.
        setting: |value| {
            Some([u64::from(libc::PR_SET_THP_DISABLE.cast_unsigned()), value & 1, value & !1])
        },
        may_fail: |value| value == 0,
    },
    Flag {
        tag: 3,
        name: "memory-deny-write-execute flag",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_MDWE],
        answer: Answer::Returned,
        setting: |value| plain(libc::PR_SET_MDWE, value),
        may_fail: |value| value == 0,
    },
    Flag {
        tag: 4,
        name: "memory merging flag",
        number: libc::SYS_prctl,
        query: &[PR_GET_MEMORY_MERGE],
        answer: Answer::Returned,
        setting: |value| plain(PR_SET_MEMORY_MERGE, value),
        // Saves memory and means nothing else; a kernel may lack it.
        may_fail: |_| true,
    },
];

impl Aspect for ProcessFlags {
    const NAME: &'static str = "process flags";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = flags::Asked;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        flags::ask(&FLAGS, batch)
    }

    fn read(_subject: &Subject<'_>, asked: Self::Asked, answers: &Answers) -> Result<Image, Error> {
        Ok(flags::read(asked, answers))
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        flags::restore(&FLAGS, Self::NAME, image, subject, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::tests::{only, value};
    use super::super::trial::{alone, capture, comes_back, restore, set};
    use super::*;
    use crate::args;

    fn prctl(settings: &'static [(i32, i32)]) -> impl FnOnce(&mut Batch) {
        move |batch| {
            for &(option, value) in settings {
                set(batch, libc::SYS_prctl, args![option, value]);
            }
        }
    }

    #[test]
    fn come_back() {
        alone(|| {
            let image = comes_back::<ProcessFlags>(
                prctl(&[(libc::PR_SET_CHILD_SUBREAPER, 1), (libc::PR_SET_THP_DISABLE, 1)]),
                prctl(&[(libc::PR_SET_CHILD_SUBREAPER, 0), (libc::PR_SET_THP_DISABLE, 0)]),
            );
            assert_eq!([value(&image, 1), value(&image, 2)], [Some(1), Some(1)]);
        });
    }

    #[test]
    fn that_cannot_be_taken_back_are_given_once() {
        alone(|| {
            let Some(before) = value(&capture::<ProcessFlags>(), 3) else {
                return crate::skipped::skip("this kernel has no MDWE");
            };
            assert_eq!(before, 0);
            restore::<ProcessFlags>(&only(3, 1)).unwrap();
            assert_eq!(value(&capture::<ProcessFlags>(), 3), Some(1));
            let error = restore::<ProcessFlags>(&only(3, 3)).unwrap_err();
            assert!(error.to_string().contains("memory-deny-write-execute"), "{error}");
        });
    }

    #[test]
    fn of_an_unknown_tag_are_an_error() {
        alone(|| assert!(restore::<ProcessFlags>(&only(77, 1)).is_err()));
    }
}
