//! A service by its name: where its image is, and who runs it.

use super::basis::Basis;
use super::settings::Use;
use crate::cli::OneService;
use crate::complaint::Complaint;
use anyhow::{Context as _, Result};
use engine::image::sync_directory;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// What is kept of it: `/var/lib/migrate/services/NAME`.
    pub(super) directory: PathBuf,
    pub(super) state: PathBuf,
}

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);

impl Service {
    pub(super) fn named(one: &OneService) -> Result<Self, Complaint> {
        let OneService { name, state, .. } = one;
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(Complaint::usage(format!("{name:?} is no name of a service")));
        }
        let state = state.state.clone();
        let directory = state.join("services").join(name);
        Ok(Self { name: name.clone(), directory, state })
    }

    pub(super) fn say(&self, what: &str) {
        eprintln!("migrate: service {}: {what}", self.name);
    }

    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    /// An image from which it goes on, or has gone on: it is never used again.
    fn used(&self) -> PathBuf {
        self.directory.join("used")
    }

    fn basis(&self) -> PathBuf {
        self.directory.join("basis")
    }

    pub(super) fn has_image(&self) -> bool {
        self.image().join("manifest").exists()
    }

    /// One at a time runs it, until this is dropped. `None`: somebody does.
    pub(super) fn claim(&self) -> Result<Option<Flock<File>>> {
        let object = || format!("make {}", self.directory.display());
        let builder = &mut DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.directory).with_context(object)?;
        let Some(lock) = self.try_lock()? else { return Ok(None) };
        fs::write(self.runner(), std::process::id().to_string()).context("write who runs it")?;
        Ok(Some(lock))
    }

    fn try_lock(&self) -> Result<Option<Flock<File>>> {
        let directory = File::open(&self.directory);
        let directory = directory.with_context(|| format!("open {}", self.directory.display()))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context("lock the directory of the service"),
        }
    }

    /// The process id of whoever has the lock.
    fn runner(&self) -> PathBuf {
        self.directory.join("runner")
    }

    /// Whether there was anything to end.
    pub(super) fn end_and_wait(&self) -> Result<bool> {
        if !self.directory.exists() || self.try_lock()?.is_some() {
            return Ok(false);
        }
        let runner = fs::read_to_string(self.runner()).context("read who runs it")?;
        let runner = Pid::from_raw(runner.trim().parse().context("read who runs it")?);
        match kill(runner, Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context(format!("signal process {runner}")),
        }
        // No limit of ours: how long a stop may take is for whoever asked for it to say.
        while self.try_lock()?.is_none() {
            std::thread::sleep(PAUSE);
        }
        Ok(true)
    }

    /// An image that fits, out of the way of every later start if it is used only once; else why
    /// there is none. `now`: what it would be made of.
    pub(super) fn take_image(&self, now: &Basis, how: Use) -> Result<PathBuf, String> {
        remove(&self.used()).map_err(|error| format!("a used image stays: {error}"))?;
        if !self.has_image() {
            return Err("there is no image".to_owned());
        }
        let was = Basis::read(&self.basis());
        let was = was.map_err(|error| format!("what its image was made of is unknown: {error}"))?;
        if let Some(why) = was.stale(now) {
            return Err(format!("its image is stale: {why}"));
        }
        if how == Use::EveryTime {
            return Ok(self.image());
        }
        let moved =
            fs::rename(self.image(), self.used()).and_then(|()| sync_directory(&self.directory));
        moved.map(|()| self.used()).map_err(|error| format!("its image cannot be used up: {error}"))
    }

    /// Makes room for an image of what runs now.
    pub(super) fn make_ready_for(&self, basis: &Basis) -> Result<PathBuf, String> {
        let ready = self.discard().and_then(|()| Ok(basis.write(&self.basis())?));
        ready.map_err(|error| format!("{error:#}"))?;
        Ok(self.image())
    }

    /// Of an older one nothing may be left when the program runs.
    pub(super) fn discard(&self) -> Result<()> {
        let what = || format!("remove the image in {}", self.directory.display());
        remove(&self.image()).and_then(|()| sync_if_there(&self.directory)).with_context(what)
    }

    /// What it went on from holds its secrets, and is of no use any more.
    pub(super) fn forget_used(&self) {
        if let Err(error) = remove(&self.used()) {
            self.say(&format!("its used image stays: {error}"));
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// An image that was used must not be back after a power cut.
fn sync_if_there(directory: &Path) -> io::Result<()> {
    if directory.exists() { sync_directory(directory) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::State;

    fn service(top: &Path) -> Service {
        let state = State { state: top.to_owned() };
        Service::named(&OneService { name: "slow".into(), config: top.into(), state }).unwrap()
    }

    fn with_image(service: &Service) -> Basis {
        let basis = Basis::look(&["/bin/true".to_owned()], &[]).unwrap();
        fs::create_dir_all(&service.directory).unwrap();
        let image = service.make_ready_for(&basis).unwrap();
        fs::create_dir(&image).unwrap();
        fs::write(image.join("manifest"), "").unwrap();
        basis
    }

    #[test]
    fn an_image_is_used_once() {
        let top = tempfile::tempdir().unwrap();
        let service = service(top.path());
        let basis = with_image(&service);
        let taken = service.take_image(&basis, Use::Once).unwrap();
        assert!(taken.join("manifest").exists() && !service.has_image());
        assert!(service.take_image(&basis, Use::Once).unwrap_err().contains("no image"));
        assert!(!taken.exists());
    }

    #[test]
    fn an_image_is_used_every_time_if_asked_for() {
        let top = tempfile::tempdir().unwrap();
        let service = service(top.path());
        let basis = with_image(&service);
        service.take_image(&basis, Use::EveryTime).unwrap();
        service.take_image(&basis, Use::EveryTime).unwrap();
        service.discard().unwrap();
        assert!(service.take_image(&basis, Use::EveryTime).is_err());
    }

    #[test]
    fn an_image_whose_basis_is_unknown_is_not_used() {
        let top = tempfile::tempdir().unwrap();
        let service = service(top.path());
        let basis = with_image(&service);
        fs::write(service.basis(), "half").unwrap();
        assert!(service.take_image(&basis, Use::EveryTime).unwrap_err().contains("unknown"));
    }

    #[test]
    fn one_at_a_time_runs_it() {
        let top = tempfile::tempdir().unwrap();
        let service = service(top.path());
        assert!(!service.end_and_wait().unwrap());
        let claim = service.claim().unwrap().unwrap();
        assert!(service.claim().unwrap().is_none());
        drop(claim);
        assert!(!service.end_and_wait().unwrap());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let state = State { state: "/nowhere".into() };
        for name in ["", "../x", "a/b", ".hidden"] {
            let one = OneService { name: name.into(), config: "/".into(), state: state.clone() };
            assert!(matches!(Service::named(&one), Err(Complaint::Usage(_))), "{name}");
        }
    }
}
