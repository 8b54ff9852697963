//! Settings of prctl(2) that each thread has for itself, and `dumpable`.
//!
//! `dumpable` is of the memory, but any thread's change of credentials resets it. Every thread
//! sets it after its own credentials, so in whatever order threads are restored, the last word is
//! one of these. It cannot be set to 2 (readable by root only, from `fs.suid_dumpable`); 0 is the
//! nearest that is not laxer.
//!
//! PR_GET_IO_FLUSHER takes CAP_SYS_RESOURCE even to read: that a thread without it was once made
//! an I/O flusher is not seen and not kept.

use super::flags::{self, Answer, Flag, Image, plain};
use super::{Aspect, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::Error;

pub(super) struct ThreadFlags;

const PR_SET_IO_FLUSHER: i32 = 57;
const PR_GET_IO_FLUSHER: i32 = 58;
const PR_MCE_KILL_DEFAULT: u64 = 2;
const PR_SPEC_STORE_BYPASS: i32 = 0;
const PR_SPEC_INDIRECT_BRANCH: i32 = 1;
const PR_SPEC_L1D_FLUSH: i32 = 2;
#[cfg(target_arch = "x86_64")]
const ARCH_GET_CPUID: i32 = 0x1011;
#[cfg(target_arch = "x86_64")]
const ARCH_SET_CPUID: u64 = 0x1012;

static FLAGS: &[Flag] = &[
    Flag {
        tag: 1,
        name: "dumpable flag",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_DUMPABLE],
        answer: Answer::Returned,
        setting: |value| plain(libc::PR_SET_DUMPABLE, u64::from(value == 1)),
        may_fail: |_| false,
    },
    Flag {
        tag: 2,
        name: "parent-death signal",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_PDEATHSIG],
        answer: Answer::Written,
        setting: |value| plain(libc::PR_SET_PDEATHSIG, value),
        may_fail: |_| false,
    },
    Flag {
        tag: 3,
        name: "timer slack",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_TIMERSLACK],
        answer: Answer::Returned,
        // A realtime thread has 0; for others that is no value but means their default.
        setting: |value| plain(libc::PR_SET_TIMERSLACK, value),
        may_fail: |_| false,
    },
    Flag {
        tag: 4,
        name: "memory failure policy",
        number: libc::SYS_prctl,
        query: &[libc::PR_MCE_KILL_GET],
        answer: Answer::Returned,
        setting: |value| Some([wide(libc::PR_MCE_KILL), wide(libc::PR_MCE_KILL_SET), value]),
        may_fail: |value| value == PR_MCE_KILL_DEFAULT,
    },
    Flag {
        tag: 5,
        name: "I/O flusher flag",
        number: libc::SYS_prctl,
        query: &[PR_GET_IO_FLUSHER],
        answer: Answer::Returned,
        setting: |value| plain(PR_SET_IO_FLUSHER, value),
        may_fail: |value| value == 0,
    },
    Flag {
        tag: 6,
        name: "speculative store bypass",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS],
        answer: Answer::Returned,
        setting: |value| mitigation(PR_SPEC_STORE_BYPASS, value),
        may_fail: |_| true,
    },
    Flag {
        tag: 7,
        name: "indirect branch speculation",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH],
        answer: Answer::Returned,
        setting: |value| mitigation(PR_SPEC_INDIRECT_BRANCH, value),
        may_fail: |_| true,
    },
    Flag {
        tag: 8,
        name: "L1D flush",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH],
        answer: Answer::Returned,
        setting: |value| mitigation(PR_SPEC_L1D_FLUSH, value),
        may_fail: |_| true,
    },
    #[cfg(target_arch = "x86_64")]
    Flag {
        tag: 9,
        name: "time stamp counter switch",
        number: libc::SYS_prctl,
        query: &[libc::PR_GET_TSC],
        answer: Answer::Written,
        setting: |value| plain(libc::PR_SET_TSC, value),
        may_fail: |_| false,
    },
    #[cfg(target_arch = "x86_64")]
    Flag {
        tag: 10,
        name: "cpuid switch",
        number: libc::SYS_arch_prctl,
        query: &[ARCH_GET_CPUID],
        answer: Answer::Returned,
        setting: |value| Some([ARCH_SET_CPUID, value, 0]),
        // On, as by default, cannot even be said where the CPU cannot trap the instruction.
        may_fail: |value| value == 1,
    },
];

impl Aspect for ThreadFlags {
    const NAME: &'static str = "thread flags";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    type Asked = flags::Asked;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        flags::ask(FLAGS, batch)
    }

    fn read(_subject: &Subject<'_>, asked: Self::Asked, answers: &Answers) -> Result<Image, Error> {
        Ok(flags::read(asked, answers))
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        flags::restore(FLAGS, Self::NAME, image, subject, batch)
    }
}

fn wide(option: i32) -> u64 {
    u64::from(option.cast_unsigned())
}

/// Whether a mitigation can be chosen is the host's policy; only a choice is carried, and a host
/// that leaves none has made its own.
fn mitigation(which: i32, value: u64) -> Option<[u64; 3]> {
    const PR_SPEC_PRCTL: u64 = 1;
    let chosen = value & PR_SPEC_PRCTL != 0;
    chosen.then(|| [wide(libc::PR_SET_SPECULATION_CTRL), wide(which), value & !PR_SPEC_PRCTL])
}

#[cfg(test)]
mod tests {
    use super::super::flags::tests::{only, value};
    use super::super::trial::{alone, capture, comes_back, in_thread, restore, set};
    use super::*;
    use crate::args;

    fn prctl(settings: &'static [(i32, i32, i32)]) -> impl FnOnce(&mut Batch) {
        move |batch| {
            for &(option, value, more) in settings {
                set(batch, libc::SYS_prctl, args![option, value, more]);
            }
        }
    }

    #[test]
    fn come_back() {
        alone(|| {
            let image = in_thread(|| {
                comes_back::<ThreadFlags>(
                    prctl(&[
                        (libc::PR_SET_DUMPABLE, 0, 0),
                        (libc::PR_SET_PDEATHSIG, libc::SIGUSR2, 0),
                        (libc::PR_SET_TIMERSLACK, 123_456, 0),
                        (libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY),
                    ]),
                    prctl(&[
                        (libc::PR_SET_DUMPABLE, 1, 0),
                        (libc::PR_SET_PDEATHSIG, 0, 0),
                        (libc::PR_SET_TIMERSLACK, 0, 0),
                        (libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, 2),
                    ]),
                )
            });
            let values = [1, 2, 3, 4].map(|tag| value(&image, tag).unwrap());
            assert_eq!(values, [0, 12, 123_456, 1]);
        });
    }

    #[test]
    fn that_forbid_the_time_stamp_counter_come_back() {
        alone(|| {
            // No clock may be read in between: the vdso would die of it.
            let image = in_thread(|| {
                let image = comes_back::<ThreadFlags>(
                    prctl(&[(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0)]),
                    prctl(&[(libc::PR_SET_TSC, libc::PR_TSC_ENABLE, 0)]),
                );
                restore::<ThreadFlags>(&only(9, 1)).unwrap();
                image
            });
            assert_eq!(value(&image, 9), Some(2));
        });
    }

    #[test]
    fn choose_a_mitigation_where_there_is_a_choice() {
        alone(|| {
            const CHOSEN_OFF: u64 = 5;
            in_thread(|| {
                let before = value(&capture::<ThreadFlags>(), 6);
                restore::<ThreadFlags>(&only(6, CHOSEN_OFF)).unwrap();
                let expected = if before == Some(3) { Some(CHOSEN_OFF) } else { before };
                assert_eq!(value(&capture::<ThreadFlags>(), 6), expected);
            });
            assert_eq!(mitigation(0, 8), None);
        });
    }

    #[test]
    fn of_a_set_user_id_program_become_no_laxer() {
        alone(|| {
            restore::<ThreadFlags>(&only(1, 2)).unwrap();
            assert_eq!(value(&capture::<ThreadFlags>(), 1), Some(0));
        });
    }
}
