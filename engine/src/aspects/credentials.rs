//! Who a thread is and what it may do: user and group ids, capabilities, securebits,
//! no_new_privs, credentials(7) and capabilities(7).
//!
//! They are a thread's own for the kernel, whatever the C library pretends. Everything but the
//! securebits stands in `/proc/PID/status`: 12 us for each thread, but by whichever processor is idle.
//! To ask the thread for it takes up to sixty calls, forty for its bounding set alone.
//!
//! # The order of restoring
//!
//! The new thread is root with every capability that the agent has. Each step needs what a later
//! one takes away:
//!
//! 1. SECBIT_NO_SETUID_FIXUP keeps all capabilities whatever the ids become.
//! 2. Inheritable capabilities before the bounding set: none can be added that it lacks, but one
//!    may be left that was dropped from it later.
//! 3. The bounding set, with CAP_SETPCAP.
//! 4. Groups, group ids, user ids, file system ids (each set of ids resets these last).
//! 5. Ambient capabilities, before the securebits may forbid them.
//! 6. The final securebits, with CAP_SETPCAP, and only then
//! 7. the final permitted and effective ones, which may not include it. Then no_new_privs.

mod capability;
mod grant;
pub(super) mod privileges;
mod status;

use super::{Aspect, Scope, Subject};
use crate::args;
use crate::batch::{Answers, Batch, Call};
use crate::error::{Error, OnObject as _};

pub(super) struct Credentials;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, required, tag = "1")]
    user: Ids,
    #[prost(message, required, tag = "2")]
    group: Ids,
    #[prost(uint32, repeated, tag = "3")]
    groups: Vec<u32>,
    #[prost(message, required, tag = "4")]
    capabilities: Capabilities,
    #[prost(uint32, tag = "5")]
    securebits: u32,
    #[prost(bool, tag = "6")]
    no_new_privs: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Ids {
    #[prost(uint32, tag = "1")]
    real: u32,
    #[prost(uint32, tag = "2")]
    effective: u32,
    #[prost(uint32, tag = "3")]
    saved: u32,
    #[prost(uint32, tag = "4")]
    file_system: u32,
}

/// One bit a capability.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Capabilities {
    #[prost(uint64, tag = "1")]
    inheritable: u64,
    #[prost(uint64, tag = "2")]
    permitted: u64,
    #[prost(uint64, tag = "3")]
    effective: u64,
    #[prost(uint64, tag = "4")]
    bounding: u64,
    #[prost(uint64, tag = "5")]
    ambient: u64,
}

impl Aspect for Credentials {
    const NAME: &'static str = "credentials";
    const SCOPE: Scope = Scope::Thread;
    type Image = Image;
    /// The securebits.
    type Asked = Call;

    fn ask(_subject: &Subject<'_>, batch: &mut Batch) -> Call {
        batch.try_call(libc::SYS_prctl, args![libc::PR_GET_SECUREBITS])
    }

    fn read(subject: &Subject<'_>, securebits: Call, answers: &Answers) -> Result<Image, Error> {
        let object = || subject.object(Self::NAME);
        let securebits = answers.result(securebits).on("read the securebits in", object)?;
        let image = status::parse(subject.status).ok_or_else(|| {
            Error::invalid("understand", object(), "status lacks ids, groups or capabilities")
        })?;
        // The kernel has eight of them.
        Ok(Image { securebits: u32::try_from(securebits).unwrap_or(u32::MAX), ..image })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        let capabilities = &image.capabilities;
        grant::check(capabilities).on("restore", || object.clone())?;
        grant::check_ids(image).on("restore", || object.clone())?;
        grant::prepare(capabilities, &object, batch);
        grant::set_ids(image, &object, batch);
        grant::finish(image, &object, batch);
        Ok(())
    }
}

#[cfg(fuzzing)]
pub(super) fn parse_all(text: &str) {
    let _ = status::parse(text);
}

#[cfg(test)]
mod tests;
