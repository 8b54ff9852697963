//! The control group of a restored tree: its own, so that what ends the agent does not end it.
//!
//! It is a directory `migrate-ID.scope` in the root of the cgroup v2 hierarchy, made before the
//! first stub, which is born there with everything that descends from it. It is removed when
//! nothing lives in it any more, by whichever agent runs then; the kernel refuses to remove one
//! that is populated, so it is simply tried, cgroups(7).

use nix::errno::Errno;
use protocol::MigrationId;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often empty ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How long one may wait for its first process, which another agent of this host may be making.
const YOUNG: Duration = Duration::from_secs(5);

/// Where control groups are made, if they can be.
#[derive(Debug)]
pub struct Scopes {
    root: Option<PathBuf>,
}

/// The control group of one tree.
#[derive(Debug)]
pub struct Scope {
    path: PathBuf,
    directory: OwnedFd,
}

impl Scopes {
    /// Says once if there is no hierarchy to use; trees then stay where the agent is.
    pub fn look() -> Arc<Self> {
        let root = engine::cgroup::root().filter(|root| match is_writable(root) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("{}: {error}", root.display());
                false
            }
        });
        if root.is_none() {
            tracing::warn!("no writable cgroup v2: trees share the control group of this agent");
        }
        Arc::new(Self { root })
    }

    /// Makes the control group of a tree. `None` where there can be none.
    pub fn make(&self, id: MigrationId) -> io::Result<Option<Scope>> {
        let Some(root) = &self.root else { return Ok(None) };
        let path = root.join(name(id));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let directory = File::open(&path)?.into();
        Ok(Some(Scope { path, directory }))
    }

    /// Kills what is left in a tree's control group, at once and with everything that it has forked
    /// (Linux 5.14).
    pub fn kill(&self, id: MigrationId) {
        let Some(root) = &self.root else { return };
        let path = root.join(name(id)).join("cgroup.kill");
        match File::options().write(true).open(&path).and_then(|mut file| file.write_all(b"1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("write {}: {error}", path.display());
            }
            _ => {}
        }
    }

    /// Removes what has become empty, for as long as the agent lives.
    pub async fn sweep_for_ever(self: Arc<Self>) {
        while self.root.is_some() {
            let scopes = Arc::clone(&self);
            // A panic in there is not worth another one here.
            let _ = tokio::task::spawn_blocking(move || scopes.sweep()).await;
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    fn sweep(&self) {
        let Some(root) = &self.root else { return };
        let Ok(directory) = fs::read_dir(root) else { return };
        for name in directory.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let path = root.join(&name);
            if id_of(&name).is_some() && is_older(&path, YOUNG) {
                remove(&path);
            }
        }
    }
}

impl Scope {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }
}

/// Goes away at once if nothing lives in it, and otherwise when that has come to pass.
impl Drop for Scope {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, path, nix::unistd::UnlinkatFlags::RemoveDir) {
        // Something lives in it, or another was quicker.
        Ok(()) | Err(Errno::EBUSY | Errno::ENOENT) => {}
        Err(error) => tracing::warn!("remove {}: {error}", path.display()),
    }
}

fn is_older(path: &Path, age: Duration) -> bool {
    let since = fs::metadata(path).and_then(|about| about.modified());
    since.is_ok_and(|since| since.elapsed().is_ok_and(|elapsed| elapsed > age))
}

fn name(id: MigrationId) -> String {
    format!("migrate-{id}.scope")
}

fn id_of(name: &str) -> Option<MigrationId> {
    name.strip_prefix("migrate-")?.strip_suffix(".scope")?.parse().ok()
}

fn is_writable(root: &Path) -> io::Result<()> {
    let trial = root.join(format!("migrate-trial-{}", std::process::id()));
    fs::create_dir(&trial)?;
    fs::remove_dir(&trial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    #[test]
    fn a_name_says_which_migration_it_is_of() {
        assert_eq!(id_of(&name(ID)), Some(ID));
        assert_eq!(id_of("migrate-trial-1.scope"), None);
        assert_eq!(id_of("session-1.scope"), None);
    }

    #[test]
    fn one_that_waits_for_its_first_process_is_not_swept_away() {
        let home = tempfile::tempdir().unwrap();
        let root = Some(home.path().to_owned());
        let scopes = Scopes { root };
        let scope = scopes.make(ID).unwrap().unwrap();
        let path = home.path().join(name(ID));
        scopes.sweep();
        assert!(path.exists());
        drop(scope);
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        let long_ago = SystemTime::now() - YOUNG * 2;
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
        scopes.sweep();
        assert!(!path.exists(), "an agent before us has left it");
    }
}
