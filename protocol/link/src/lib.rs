//! The link: an encrypted, mutually proven connection between two hosts, and streams of bytes on it.
//!
//! This is the only network code. It knows hosts by their keys ([`Identity`], [`AuthorizedHosts`],
//! [`KnownHosts`]), connects them ([`connect`], [`Listener`]) and moves bytes: frames on
//! bidirectional *control* streams, unbounded runs on unidirectional *bulk* streams. What the bytes
//! mean, it does not know.
//!
//! Every wait is bounded by a duration that the caller gives, every buffer by [`Tuning`].

#![forbid(unsafe_code)]

mod admission;
mod connection;
mod dial;
mod endpoint;
mod error;
mod fingerprint;
mod frames;
mod hosts;
mod identity;
mod listener;
mod path;
mod socket;
mod streams;
mod tls;
mod trust_file;
mod tuning;

pub use connection::{CALLER_CODES, Connection, Stats};
pub use dial::connect;
pub use error::LinkError;
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use frames::{Control, FrameReceiver, FrameSender};
pub use hosts::{AuthorizedHosts, KnownHosts};
pub use identity::{AUTHORIZED_HOSTS, DIRECTORY, IDENTITY, Identity, KNOWN_HOSTS};
pub use listener::{Authorised, Incoming, Listener};
pub use streams::{BulkReceiver, BulkSender};
pub use trust_file::{LineProblem, TrustFileError};
pub use tuning::{Congestion, Tuning};
