//! What a process does on each signal, sigaction(2). Shared by its threads.
//!
//! The kernel's own structure is recorded, restorer included: the C library shows neither the
//! restorer nor the two signals that it keeps for itself. Processes that share their actions
//! without being threads (CLONE_SIGHAND alone) each get a copy.

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Bytes, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct SignalActions;

/// Only those that are not the default.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    actions: Vec<Action>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Action {
    #[prost(uint32, tag = "1")]
    signal: u32,
    /// An address, or 0 (default) or 1 (ignore).
    #[prost(uint64, tag = "2")]
    handler: u64,
    #[prost(uint64, tag = "3")]
    flags: u64,
    #[prost(uint64, tag = "4")]
    restorer: u64,
    #[prost(uint64, tag = "5")]
    mask: u64,
}

const LAST_SIGNAL: u32 = 64;
const MASK_BYTES: usize = 8;
/// struct kernel_sigaction on x86-64 and aarch64: handler, flags, restorer, mask.
const ACTION_BYTES: usize = 32;

impl Aspect for SignalActions {
    const NAME: &'static str = "signal actions";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = Vec<(u32, Call, Bytes)>;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked {
        settable()
            .map(|signal| {
                let room = batch.room(ACTION_BYTES);
                let args = args![signal, 0, room, MASK_BYTES];
                (signal, batch.try_call(libc::SYS_rt_sigaction, args), room)
            })
            .collect()
    }

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Image, Error> {
        let mut actions = Vec::new();
        for (signal, call, room) in asked {
            answers.result(call).on("read", || subject.object(Self::NAME))?;
            actions.push(Action::answered(signal, room, answers));
        }
        actions.retain(|action| *action != Action { signal: action.signal, ..Action::default() });
        Ok(Image { actions })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        if let Some(action) = image.actions.iter().find(|a| !settable().any(|s| s == a.signal)) {
            let why = format!("signal {} has no action", action.signal);
            return Err(Error::invalid("restore", subject.object(Self::NAME), why));
        }
        // All of them: the new process has what its parent had, which is an agent's.
        for signal in settable() {
            let found = image.actions.iter().find(|action| action.signal == signal);
            let action = found.copied().unwrap_or_default();
            let bytes = batch.bytes(&action.kernel_bytes());
            let args = args![signal, bytes, 0, MASK_BYTES];
            batch.call("restore", &subject.object(Self::NAME), libc::SYS_rt_sigaction, args);
        }
        Ok(())
    }
}

impl Action {
    fn answered(signal: u32, room: Bytes, answers: &Answers) -> Self {
        let [handler, flags, restorer, mask] = [0, 1, 2, 3].map(|i| answers.u64_at(room, i));
        Self { signal, handler, flags, restorer, mask }
    }

    fn kernel_bytes(&self) -> Vec<u8> {
        [self.handler, self.flags, self.restorer, self.mask].map(u64::to_ne_bytes).concat()
    }
}

/// SIGKILL and SIGSTOP have no action that could be set.
fn settable() -> impl Iterator<Item = u32> {
    (1..=LAST_SIGNAL)
        .filter(|s| ![libc::SIGKILL, libc::SIGSTOP].map(i32::cast_unsigned).contains(s))
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, restore, set};
    use super::*;

    fn act(batch: &mut Batch, action: Action) {
        let bytes = batch.bytes(&action.kernel_bytes());
        set(batch, libc::SYS_rt_sigaction, args![action.signal, bytes, 0, MASK_BYTES]);
    }

    #[test]
    fn come_back_with_flags_restorer_and_mask() {
        alone(|| {
            // SA_SIGINFO | SA_RESTORER | SA_RESTART | SA_ONSTACK. The signals are never sent.
            let flags = 0x1400_0004 | 0x0800_0000;
            let handled = Action { signal: 34, handler: 0x1000, flags, restorer: 0x2000, mask: 6 };
            let ignored = Action { signal: 12, handler: 1, ..Action::default() };
            let image = comes_back::<SignalActions>(
                |batch| [handled, ignored].into_iter().for_each(|action| act(batch, action)),
                |batch| {
                    act(batch, Action { signal: 12, ..Action::default() });
                    act(batch, Action { signal: 34, handler: 1, ..Action::default() });
                    act(batch, Action { signal: 40, handler: 1, ..Action::default() });
                },
            );
            assert!(image.actions.contains(&handled) && image.actions.contains(&ignored));
        });
    }

    #[test]
    fn of_kill_is_not_taken_from_an_image() {
        alone(|| {
            for signal in [0, 9, 19, 65, u32::MAX] {
                let action = Action { signal, handler: 1, ..Action::default() };
                let error = restore::<SignalActions>(&Image { actions: vec![action] });
                assert!(error.is_err(), "signal {signal}");
            }
        });
    }
}
