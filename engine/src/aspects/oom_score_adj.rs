//! How readily the kernel kills a process when memory runs out, proc_pid_oom_score_adj(5).
//!
//! Written through procfs, by us. To go below what the new process was born with takes
//! CAP_SYS_RESOURCE, so nothing is written where nothing changes.

use super::{Aspect, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::{Error, OnObject as _};
use std::io;

pub(super) struct OomScoreAdj;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// -1000 (never) to 1000 (first).
    #[prost(sint32, tag = "1")]
    adjustment: i32,
}

const FILE: &str = "oom_score_adj";

impl Aspect for OomScoreAdj {
    const NAME: &'static str = "out-of-memory score";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = io::Result<String>;

    fn ask(subject: &Subject<'_>, _batch: &mut Batch) -> Self::Asked {
        subject.text(FILE)
    }

    fn read(subject: &Subject<'_>, text: Self::Asked, _answers: &Answers) -> Result<Image, Error> {
        let text = text.on("read", || subject.object(Self::NAME))?;
        let adjustment = text.trim().parse().map_err(|_| {
            Error::invalid("read", subject.object(Self::NAME), format!("{text:?} is no number"))
        })?;
        Ok(Image { adjustment })
    }

    fn restore(_image: &Image, _subject: &Subject<'_>, _batch: &mut Batch) -> Result<(), Error> {
        Ok(())
    }

    fn restore_outside(image: &Image, subject: &Subject<'_>) -> Result<(), Error> {
        let wanted = image.adjustment.to_string();
        let present = subject.text(FILE).on("read", || subject.object(Self::NAME))?;
        if present.trim() == wanted {
            return Ok(());
        }
        std::fs::write(subject.path(FILE), wanted).on("restore", || subject.object(Self::NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, restore};
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        alone(|| {
            let write = |text| std::fs::write("/proc/self/oom_score_adj", text).unwrap();
            let image = comes_back::<OomScoreAdj>(|_| write("700"), |_| write("300"));
            assert_eq!(image.adjustment, 700);
        });
    }

    #[test]
    fn that_is_out_of_range_is_named() {
        alone(|| {
            let error = restore::<OomScoreAdj>(&Image { adjustment: 1001 }).unwrap_err();
            assert!(error.to_string().starts_with("restore out-of-memory score of thread"));
        });
    }
}
