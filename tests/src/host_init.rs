//! What a test and the first process of a host say to each other: one JSON value a line.
//!
//! The first process answers every request with exactly one reply, in order. It never blocks on a
//! command it started: a test asks for its [`Status`] until it likes the answer.

use serde::{Deserialize, Serialize};

/// Where a host looks for programs.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a host is made. Passed as one argument, so that the helper needs no command line of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub hostname: String,
    /// The first PID that a command on this host gets, about. Two hosts with far apart ranges do
    /// not take each other's PIDs by chance.
    pub first_pid: u32,
    /// A directory that both hosts see at the same path. The helper removes it when the host ends.
    pub shared: String,
    /// Directories that stay visible although a private directory is mounted above them.
    pub kept: Vec<String>,
}

/// A program to start: in a session of its own, with its output in files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    pub argv: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub directory: String,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Start(Program),
    Status { pid: i32 },
    Signal { pid: i32, signal: i32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The PID in the host's own namespace.
    Started {
        pid: i32,
    },
    Status(Status),
    Signalled,
    Failed(String),
}

/// What the first process knows of another process. It reaps everything whose parent died, so a
/// tree that was moved here ends with a status as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Running,
    Exited(i32),
    Killed(i32),
    Unknown,
}
