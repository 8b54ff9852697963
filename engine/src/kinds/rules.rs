//! What becomes of things that lead out of the tree, and what was found when it was asked.

use crate::error::Object;
use crate::refusal::Refusal;
use std::fmt;

/// The operator's answers for what has another end outside of the tree. Nothing is guessed: what
/// no rule covers is a [`Refusal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub terminal: Terminal,
    pub outside_pipe: OutsidePipe,
    pub tcp: Tcp,
    pub outside_unix: OutsideUnix,
}

/// A terminal whose other side (an ssh session, a terminal emulator) stays behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminal {
    /// Its descriptors lead to /dev/null on the destination. The default: a daemon that was
    /// started by hand still has its terminal open and does not use it.
    #[default]
    Detach,
    Refuse,
}

/// A pipe whose other end somebody outside of the tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutsidePipe {
    /// What was written to somebody outside goes to /dev/null; a reader of somebody outside gets
    /// what is queued and then the end of the file. The default: this is `program | logger`, and a
    /// SIGPIPE would kill the program.
    #[default]
    Null,
    Refuse,
}

/// A TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tcp {
    /// It goes on. The default: a server whose clients are cut off was not moved.
    #[default]
    Established,
    Refuse,
    /// The program sees that its peer reset the connection; the peer sees what it would if the
    /// program had been killed.
    Close,
    /// As `Close`, and the peer sees a reset as well.
    Reset,
}

/// A unix socket that is connected to a process outside of the tree: the log, a database, D-Bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutsideUnix {
    /// Datagram sockets are connected again to the same name on the destination: what listens
    /// there (syslog, journald, the service manager) keeps no state of its senders. All others are
    /// refused.
    #[default]
    Auto,
    /// Streams as well: the program has to know a new connection from the old one.
    Reconnect,
    /// The program sees that its peer has closed the connection.
    Close,
    Refuse,
}

/// Something that will be different after the move, without being in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub object: Object,
    /// A clause that goes on from the object: "will lead to /dev/null".
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.", self.object, self.text)
    }
}

/// What a look at the tree from outside brought: everything, never just the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub refusals: Vec<Refusal>,
    pub notes: Vec<Note>,
}

impl Findings {
    pub fn refuse(&mut self, object: Object, reason: impl Into<String>, advice: impl Into<String>) {
        self.refusals.push(Refusal { object, reason: reason.into(), advice: advice.into() });
    }

    pub fn note(&mut self, object: Object, text: impl Into<String>) {
        self.notes.push(Note { object, text: text.into() });
    }
}
