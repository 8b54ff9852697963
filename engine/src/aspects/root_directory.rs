//! What a process sees as `/`, chroot(2). Shared by its threads.
//!
//! Set after the working directory, which it leaves alone.

use super::{Aspect, Scope, Subject, directory};
use crate::args;
use crate::batch::{Answers, Batch};
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use std::io;

pub(super) struct RootDirectory;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// Absolute, as seen from the host's root, which is "/".
    #[prost(bytes = "vec", tag = "1")]
    path: Vec<u8>,
}

impl Aspect for RootDirectory {
    const NAME: &'static str = "root directory";
    const SCOPE: Scope = Scope::Process;
    type Image = Image;
    type Asked = io::Result<Vec<u8>>;

    fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
        directory::lost(subject, "root", Self::NAME)
    }

    fn ask(subject: &Subject<'_>, _batch: &mut Batch) -> Self::Asked {
        subject.link("root")
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
        if image.path == b"/" {
            return Ok(());
        }
        // chroot(2) knows only paths, so it is told the directory that the thread stands in.
        let here = batch.string(".");
        let args = args![libc::AT_FDCWD, here, libc::O_PATH | libc::O_CLOEXEC, 0];
        let back = batch.call("leave for", &object, libc::SYS_openat, args);
        directory::enter(&image.path, &object, batch)?;
        batch.call("change to", &object, libc::SYS_chroot, args![here]);
        batch.call("come back from", &object, libc::SYS_fchdir, args![back]);
        batch.call("close our descriptor of", &object, libc::SYS_close, args![back]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{alone, in_thread, restore, run, set, this_thread};
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn is_entered_and_is_read_back_from_outside() {
        alone(|| {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join("marker"), "").unwrap();
            let path = root.path().canonicalize().unwrap().to_str().unwrap().as_bytes().to_vec();
            let image = Image { path };
            let inside = image.clone();
            let (say, hear) = channel();
            let (end, ended) = channel::<()>();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    // A root of its own, or this would move the whole test.
                    run(|batch| set(batch, libc::SYS_unshare, args![libc::CLONE_FS]));
                    restore::<RootDirectory>(&inside).unwrap();
                    assert!(std::fs::exists("/marker").unwrap());
                    say.send(this_thread()).unwrap();
                    ended.recv().unwrap_err();
                });
                let subject = hear.recv().unwrap();
                let asked = RootDirectory::ask(&subject, &mut Batch::new());
                let answers = Answers { results: Vec::new(), bytes: Vec::new() };
                assert_eq!(RootDirectory::read(&subject, asked, &answers).unwrap(), image);
                drop(end);
            });
        });
    }

    #[test]
    fn of_the_host_is_left_alone() {
        alone(|| {
            in_thread(|| {
                restore::<RootDirectory>(&Image { path: b"/".into() }).unwrap();
            });
            assert!(std::fs::exists("/proc/self").unwrap());
        });
    }
}
