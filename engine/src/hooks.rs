//! The operator's own programs, run at named points of a move: to tell a router, a load balancer or
//! a cloud's API what the engine knows nothing of.

use crate::error::{Error, Object, OnObject as _};
use crate::priority::as_usual;
use crate::sys;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where a move stands when a hook is run. docs/hooks.md has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// On the source, before anything is touched.
    Begin,
    /// On the source, while the tree still runs: it is frozen next.
    BeforeFreeze,
    /// On the source, in the freeze: the right to run is given away next.
    Give,
    /// On the source: it runs there, and nothing of it is left here.
    Moved,
    /// On the source: it stays.
    Kept,
    /// On the destination, before anything is built.
    Expect,
    /// On the destination: its addresses are here, and it runs.
    Running,
    /// On the destination: it never ran here, and nothing of it is left.
    Discarded,
}

impl Point {
    /// The name of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::BeforeFreeze => "before-freeze",
            Self::Give => "give",
            Self::Moved => "moved",
            Self::Kept => "kept",
            Self::Expect => "expect",
            Self::Running => "running",
            Self::Discarded => "discarded",
        }
    }

    /// How long it may take. In the freeze every millisecond counts, and the tree stands still.
    pub fn time_max(self) -> Duration {
        match self {
            Self::Give => Duration::from_secs(1),
            _ => Duration::from_secs(30),
        }
    }
}

/// The hooks of a host, for one move.
#[derive(Clone, Debug)]
pub struct Hooks {
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// The file may be changed by somebody else than root: then whoever that is would be root.
const WRITABLE_BY_OTHERS: u32 = 0o022;

impl Hooks {
    /// Beneath the directory of a host's key. It may be missing: then there are none.
    pub fn beneath(config: &Path) -> Self {
        Self { directory: config.join("hooks"), environment: Vec::new() }
    }

    #[must_use]
    pub fn and(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Runs the hook of a point to its end, if there is one.
    ///
    /// # Errors
    /// EPERM when somebody else than root may write it; what execve(2) says; ETIMEDOUT when it was
    /// ended because it took too long; any other end than 0 with the end of what it said.
    pub fn run(&self, point: Point) -> Result<(), Error> {
        let path = self.directory.join(point.name());
        let object = || Object::File { path: path.display().to_string() };
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            about => check(&about.on("look at the hook", object)?).on("run the hook", object)?,
        }
        self.carry_out(&path, point).on("run the hook", object)
    }

    fn carry_out(&self, path: &Path, point: Point) -> io::Result<()> {
        let mut said = tempfile()?;
        let mut command = Command::new(path);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("MIGRATE_HOOK", point.name());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(said.try_clone()?).stderr(said.try_clone()?);
        // What it starts ends with it, when it takes too long.
        let child = spawn(command.process_group(0))?;
        let status = end_of(child, point.time_max())?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{}{}", ended(status), last_words(&mut said)))),
        }
    }
}

fn check(about: &std::fs::Metadata) -> io::Result<()> {
    let foreign = about.uid() != nix::unistd::geteuid().as_raw();
    let why = match about.mode() {
        _ if !about.is_file() => "it is no file",
        _ if foreign => "it belongs to somebody else",
        mode if mode & WRITABLE_BY_OTHERS != 0 => "others may write it",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Another thread of ours that was just forking may have inherited the file from who has written it:
/// until it has called execve(2) the file is busy, see ETXTBSY there.
fn spawn(command: &mut Command) -> io::Result<Child> {
    const TRIES: u32 = 100;
    for _ in 1..TRIES {
        match as_usual(|| command.spawn()) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
    as_usual(|| command.spawn())
}

fn tempfile() -> io::Result<std::fs::File> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    Ok(nix::sys::memfd::memfd_create(c"what a hook says", flags)?.into())
}

fn end_of(mut child: Child, time_max: Duration) -> io::Result<ExitStatus> {
    let process = sys::fd::pidfd_open(child.id().cast_signed(), 0)?;
    let limit = Instant::now() + time_max;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
            // It can only be gone already.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            child.wait()?;
            let why = format!("it took more than {time_max:?} and was ended");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let wait_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        match sys::fd::poll(process.as_fd(), libc::POLLIN, wait_ms) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with {}", status.code().unwrap_or(-1)),
    }
}

/// Of what it said, the last line that says anything.
fn last_words(said: &mut std::fs::File) -> String {
    use std::os::unix::fs::FileExt as _;
    const BYTES_MAX: u64 = 4096;
    let length = said.metadata().map_or(0, |about| about.len());
    let mut end = vec![0; usize::try_from(length.min(BYTES_MAX)).unwrap_or(0)];
    if said.read_exact_at(&mut end, length.saturating_sub(BYTES_MAX)).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&end).into_owned();
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn with(text: &str, mode: u32) -> (tempfile::TempDir, Hooks) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("hooks")).unwrap();
        let path = home.path().join("hooks/give");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let hooks = Hooks::beneath(home.path()).and("MIGRATE_PID", "7".to_owned());
        (home, hooks)
    }

    fn why(text: &str, mode: u32) -> String {
        let (home, hooks) = with(text, mode);
        let error = hooks.run(Point::Give).unwrap_err();
        assert!(error.to_string().contains(&home.path().display().to_string()), "{error}");
        error.source.to_string()
    }

    #[test]
    fn it_knows_where_and_what() {
        let text = "#!/bin/sh\n[ $MIGRATE_HOOK-$MIGRATE_PID = give-7 ] && [ -z \"$HOME\" ]\n";
        with(text, 0o755).1.run(Point::Give).unwrap();
    }

    #[test]
    fn one_that_is_not_there_is_nothing_to_be_done() {
        let (home, hooks) = with("", 0o644);
        hooks.run(Point::Moved).unwrap();
        Hooks::beneath(&home.path().join("nowhere")).run(Point::Give).unwrap();
    }

    #[test]
    fn a_failure_is_told_in_its_own_last_words() {
        assert_eq!(why("#!/bin/sh\necho no route\nexit 3\n", 0o755), "it ended with 3: no route");
        assert_eq!(why("#!/bin/sh\nkill -9 $$\n", 0o755), "it was ended by signal 9");
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_started() {
        let began = Instant::now();
        let why = why("#!/bin/sh\nsleep 50 & sleep 50\n", 0o755);
        assert!(why.contains("more than 1s"), "{why}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_others_may_write_is_not_run() {
        assert_eq!(why("#!/bin/sh\n", 0o775), "others may write it");
        assert!(why("#!/bin/sh\n", 0o644).contains("denied"));
    }
}
