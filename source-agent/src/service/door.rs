//! The control socket: who may come in.
//!
//! Whoever may ask for a move may have any process of this host run somewhere else, and a file of
//! any name written there by it. That is root's to decide, so only root may ask.

use engine::{Error, Object, OnObject as _};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// When there are too many open files to accept one more.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// One agent a socket, for as long as it lives.
    _lock: Flock<File>,
}

impl Door {
    /// A socket that an agent before us left is replaced; one that an agent listens on is not.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let here = || object(path);
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).on("make", here)?;
        }
        let lock = lock(&beside(path, "lock"))?;
        // Under its name it is never there with other permissions than these.
        let new = beside(path, "new");
        remove(&new)?;
        let listener = UnixListener::bind(&new).on("listen on", here)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600)).on("protect", here)?;
        fs::rename(&new, path).on("put into place", here)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// The next one who may ask.
    pub(crate) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_allowed(&stream) => return stream,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _it_may_be_gone = fs::remove_file(&self.path);
    }
}

/// By what the kernel says of the other end, see `SO_PEERCRED` in unix(7).
fn is_allowed(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if may_ask(peer.uid()) => true,
        Ok(peer) => {
            let (uid, pid) = (peer.uid(), peer.pid());
            tracing::warn!(uid, pid, "turned away from the control socket: only root may ask");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "turned away from the control socket: nobody knows who it is");
            false
        }
    }
}

fn may_ask(uid: u32) -> bool {
    uid == 0
}

fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.on("open", || object(path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Error::invalid("lock", object(path), "another source agent is running"))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.on("remove", || object(path)),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn object(path: &Path) -> Object {
    Object::File { path: path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_has_one_agent_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let door = Door::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Door::open(&path).unwrap_err();
        assert!(error.source.to_string().contains("another source agent"), "{error:?}");
        drop(door);
        assert!(!path.exists());
        drop(Door::open(&path).unwrap());
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let door = Door::open(&path).unwrap();
        let (accepted, connected) = tokio::join!(door.accept(), UnixStream::connect(&path));
        assert!(connected.is_ok());
        drop(accepted);
    }

    #[test]
    fn only_root_may_ask() {
        assert!(may_ask(0));
        assert!(!may_ask(1000) && !may_ask(u32::MAX));
    }
}
