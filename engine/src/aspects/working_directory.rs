//! Where a process's relative paths begin, chdir(2). Shared by its threads.
//!
//! Told by its path, from `/proc/PID/cwd`: the destination must have a directory there.

use super::{Aspect, Scope, Subject, directory};
use crate::batch::{Answers, Batch};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use std::io;

pub(super) struct WorkingDirectory;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Absolute, as seen from the host's root. Any bytes but zero.
    #[prost(bytes = "vec", tag = "1")]
    path: Vec<u8>,
}

impl Aspect for WorkingDirectory {
    const NAME: &'static str = "working directory";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = io::Result<Vec<u8>>;

    fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
        directory::lost(subject, "cwd", Self::NAME)
    }

    fn ask(subject: &Subject<'_>, _batch: &mut Batch) -> Self::Asked {
        subject.link("cwd")
    }

    fn read(
        subject: &Subject<'_>,
        path: Self::Asked,
        _answers: &Answers,
    ) -> Result<Image, Error> {
        Ok(Image { path: path.on("read", || subject.object(Self::NAME))? })
    }

    fn restore(image: &Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error> {
        let object = subject.object(Self::NAME);
        directory::enter(&image.path, &object, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, comes_back, restore, set, this_thread};
    use super::*;
    use crate::args;
    use std::os::unix::ffi::OsStrExt as _;

    fn enter(path: &[u8]) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let path = batch.string(path);
            set(batch, libc::SYS_chdir, args![path]);
        }
    }

    #[test]
    fn comes_back_under_a_name_that_is_no_text() {
        alone(|| {
            let parent = tempfile::tempdir().unwrap();
            let name = std::ffi::OsStr::from_bytes(b"\xff dir (deleted)");
            let path = parent.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let path = path.canonicalize().unwrap();
            let image =
                comes_back::<WorkingDirectory>(enter(path.as_os_str().as_bytes()), enter(b"/"));
            assert_eq!(image.path, path.as_os_str().as_bytes());
            assert_eq!(WorkingDirectory::examine(&this_thread()), []);
            std::env::set_current_dir("/").unwrap();
        });
    }

    #[test]
    fn that_was_deleted_is_refused() {
        alone(|| {
            let gone = tempfile::tempdir().unwrap();
            std::env::set_current_dir(gone.path()).unwrap();
            std::fs::remove_dir(gone.path()).unwrap();
            let refusals = WorkingDirectory::examine(&this_thread());
            assert_eq!(refusals.len(), 1);
            let text = refusals[0].to_string();
            let path = gone.path().to_str().unwrap();
            assert!(text.contains("working directory") && text.contains(path), "{text}");
        });
    }

    #[test]
    fn that_the_destination_lacks_is_named_with_its_cause() {
        alone(|| {
            let error = restore::<WorkingDirectory>(&Image { path: b"/no/such/place".into() });
            assert!(error.unwrap_err().to_string().starts_with("enter working directory of"));
            for path in [&b"relative"[..], b"", b"/zero\0byte"] {
                let error = restore::<WorkingDirectory>(&Image { path: path.into() });
                assert!(error.is_err(), "{path:?}");
            }
        });
    }
}
