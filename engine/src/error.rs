//! Every failure names what was being done, and to which object of which process.

use std::{fmt, io};

/// Something on this host that can be named to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Host,
    Process {
        pid: i32,
    },
    Thread {
        pid: i32,
        tid: i32,
    },
    Fd {
        pid: i32,
        fd: i32,
        kind: &'static str,
    },
    /// What lies in the queue of a socket, sent and not yet received.
    InFlight {
        pid: i32,
        fd: i32,
        kind: &'static str,
    },
    Mapping {
        pid: i32,
        start: u64,
        end: u64,
    },
    File {
        path: String,
    },
    /// A piece of process or thread state that is behind no descriptor.
    Aspect {
        tid: i32,
        name: &'static str,
    },
    /// An address, device, connection or filter of this host.
    Network {
        name: String,
    },
    /// A part of an image that came over a wire or from a file.
    Image {
        part: String,
    },
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(f, "this host"),
            Self::Process { pid } => write!(f, "process {pid}"),
            Self::Thread { pid, tid } => write!(f, "thread {tid} of process {pid}"),
            Self::Fd { pid, fd, kind } => write!(f, "{kind} at fd {fd} of process {pid}"),
            Self::InFlight { pid, fd, kind } => {
                write!(f, "{kind} in flight to fd {fd} of process {pid}")
            }
            Self::Mapping { pid, start, end } => {
                write!(f, "mapping {start:#x}-{end:#x} of process {pid}")
            }
            Self::File { path } => write!(f, "file {path}"),
            Self::Aspect { tid, name } => write!(f, "{name} of thread {tid}"),
            Self::Network { name } => write!(f, "{name}"),
            Self::Image { part } => write!(f, "{part} of the image"),
        }
    }
}

/// `Display` is the action and the object; the cause is `source`, and `chain` prints both.
#[derive(Debug, thiserror::Error)]
#[error("{action} {object}")]
pub struct Error {
    /// A verb phrase: "read the counter of", "freeze".
    pub action: &'static str,
    pub object: Object,
    pub source: io::Error,
}

impl Error {
    pub fn new(action: &'static str, object: Object, source: io::Error) -> Self {
        Self { action, object, source }
    }

    /// A failure that the kernel did not report: bytes or a state that make no sense.
    pub fn invalid(action: &'static str, object: Object, why: impl Into<String>) -> Self {
        Self { action, object, source: io::Error::new(io::ErrorKind::InvalidData, why.into()) }
    }

    /// The process or thread went away while it was being looked at.
    pub fn is_gone(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
    }
}

/// Puts the object's name on a bare system error, at the place that knows it.
pub trait OnObject<T> {
    fn on(self, action: &'static str, object: impl FnOnce() -> Object) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> OnObject<T> for Result<T, E> {
    fn on(self, action: &'static str, object: impl FnOnce() -> Object) -> Result<T, Error> {
        self.map_err(|source| Error { action, object: object(), source: source.into() })
    }
}
