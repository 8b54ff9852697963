//! Places where a test makes us fail: named, before and after everything that matters.
//!
//! `MIGRATE_FAIL=source.freeze.after=kill,destination.stage.before=ENOMEM` in the environment says
//! what happens when a place is reached for the first time. Only builds with debug assertions look;
//! a release build has no such places.
//!
//! | action | what happens |
//! |---|---|
//! | `kill` | the process kills itself (SIGKILL) |
//! | `hold:PATH` | PATH is made, and the thread waits there until somebody has removed it |
//! | `ENOMEM`, `EMFILE`, `ENOSPC`, `EIO`, each with `:PATH` if wanted | the step fails with that error, and PATH is made |

use crate::error::{Error, Object, OnObject as _};
use std::io;

pub const VARIABLE: &str = "MIGRATE_FAIL";

/// Says that the place is reached. The error is the one that was asked for.
#[cfg(not(debug_assertions))]
pub fn reach(_place: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
pub fn reach(place: &str) -> io::Result<()> {
    plan::of_this_process().reach(place)
}

/// The step with a place on either side of it. What fails behind it was done all the same.
pub fn around<T>(place: &str, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    pass(place, "before")?;
    let done = step()?;
    pass(place, "after")?;
    Ok(done)
}

/// One of the two places of a step.
pub fn pass(step: &str, side: &str) -> Result<(), Error> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    let place = || Object::Image { part: format!("place {step}.{side}") };
    reach(&format!("{step}.{side}")).on("pass", place)
}

#[cfg(debug_assertions)]
mod plan {
    use super::VARIABLE;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    /// A test that has died does not remove anything.
    const HOLD_MAX: Duration = Duration::from_secs(120);
    const LOOK_PAUSE: Duration = Duration::from_millis(2);

    #[derive(Debug)]
    pub(super) struct Plan(Vec<Planned>);

    #[derive(Debug)]
    struct Planned {
        place: String,
        action: Action,
        has_happened: AtomicBool,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        Kill,
        Hold(PathBuf),
        Fail { errno: i32, mark: Option<PathBuf> },
    }

    pub(super) fn of_this_process() -> &'static Plan {
        static PLAN: LazyLock<Plan> =
            LazyLock::new(|| Plan::read(&std::env::var(VARIABLE).unwrap_or_default()));
        &PLAN
    }

    impl Plan {
        /// What cannot be read is a mistake of the test, and no reason to run without the failure.
        fn read(text: &str) -> Self {
            let planned = text.split(',').filter(|one| !one.is_empty());
            Self(
                planned.map(|one| Planned::read(one).unwrap_or_else(|| panic!("{one}?"))).collect(),
            )
        }

        pub(super) fn reach(&self, place: &str) -> io::Result<()> {
            let here = self.0.iter().filter(|planned| planned.place == place);
            here.filter(|planned| !planned.has_happened.swap(true, Ordering::Relaxed))
                .try_for_each(|planned| planned.action.happen())
        }
    }

    impl Planned {
        fn read(text: &str) -> Option<Self> {
            let (place, action) = text.split_once('=')?;
            let (action, path) = match action.split_once(':') {
                Some((action, path)) => (action, Some(PathBuf::from(path))),
                None => (action, None),
            };
            let fail = |errno, mark| Some(Action::Fail { errno, mark });
            let action = match action {
                "kill" => Some(Action::Kill),
                "hold" => path.map(Action::Hold),
                "ENOMEM" => fail(libc::ENOMEM, path),
                "EMFILE" => fail(libc::EMFILE, path),
                "ENOSPC" => fail(libc::ENOSPC, path),
                "EIO" => fail(libc::EIO, path),
                _ => None,
            }?;
            Some(Self { place: place.to_owned(), action, has_happened: AtomicBool::new(false) })
        }
    }

    impl Action {
        fn happen(&self) -> io::Result<()> {
            match self {
                Self::Kill => Ok(kill(getpid(), Signal::SIGKILL)?),
                Self::Hold(path) => hold(path),
                Self::Fail { errno, mark } => {
                    mark.as_ref().map_or(Ok(()), |path| fs::write(path, ""))?;
                    Err(io::Error::from_raw_os_error(*errno))
                }
            }
        }
    }

    fn hold(path: &Path) -> io::Result<()> {
        fs::write(path, "")?;
        let end = Instant::now() + HOLD_MAX;
        while path.exists() && Instant::now() < end {
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_place_fails_once_and_others_do_not() {
            let plan = Plan::read("source.freeze.after=ENOMEM,a.b.before=EMFILE");
            plan.reach("source.freeze.before").unwrap();
            let error = plan.reach("source.freeze.after").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
            plan.reach("source.freeze.after").unwrap();
            assert!(plan.reach("a.b.before").is_err());
        }

        #[test]
        fn a_failure_leaves_its_mark() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("here");
            let plan = Plan::read(&format!("x.y.before=EMFILE:{}", path.display()));
            assert!(!path.exists());
            let error = plan.reach("x.y.before").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            assert!(path.exists());
        }

        #[test]
        fn who_is_held_waits_for_the_file_to_go() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("here");
            let plan = Plan::read(&format!("x.y.before=hold:{}", path.display()));
            std::thread::scope(|scope| {
                let held = scope.spawn(|| plan.reach("x.y.before"));
                while !path.exists() {
                    std::thread::yield_now();
                }
                assert!(!held.is_finished());
                fs::remove_file(&path).unwrap();
                held.join().unwrap().unwrap();
            });
        }
    }
}
