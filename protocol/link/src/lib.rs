//! The link: an encrypted, mutually proven connection between two hosts, and streams of bytes on it.
//!
//! This is the only network code. It knows hosts by their keys ([`Identity`], [`AuthorizedHosts`],
//! [`KnownHosts`]), or by what a CA says of these ([`Authority`]), connects them ([`connect`], [`Listener`]) and moves bytes: frames on
//! bidirectional *control* streams, unbounded runs on unidirectional *bulk* streams. What the bytes
//! mean, it does not know.
//!
//! Every wait is bounded by a duration that the caller gives, every buffer by [`Tuning`].

#![forbid(unsafe_code)]

mod admission;
mod atomic;
mod authority;
mod certificate;
mod connection;
mod dial;
mod endpoint;
mod error;
mod fetch;
mod fingerprint;
mod frames;
mod hosts;
mod identity;
mod listener;
mod pace;
mod path;
mod patience;
mod refused;
mod socket;
mod streams;
mod tls;
mod trust_file;
mod tuning;

pub use authority::{AUTHORITY, Authority, Issue, IssueError, Terms};
pub use certificate::{Credentials, Description, Role, utc};
pub use connection::{CALLER_CODES, Connection, Stats};
pub use dial::connect;
pub use error::LinkError;
pub use fetch::fetch;
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use frames::{Control, FrameReceiver, FrameSender};
pub use hosts::{
    AUTHORIZED_HOSTS, AuthorizedHosts, KNOWN_HOSTS, KnownHost, KnownHosts, KnownHostsFile,
    REVOKED_HOSTS, RevokedHosts,
};
pub use identity::{DIRECTORY, IDENTITY, Identity, OldKey, Rotation, certify};
pub use listener::{Authorised, Incoming, Listener, NotAdmitted};
pub use pace::{Bucket, Pace};
pub use refused::Refused;
pub use streams::{BulkReceiver, BulkSender};
pub use trust_file::{ContentProblem, LineProblem, TrustFileError, read_if_there, read_small};
pub use tuning::{Congestion, Tuning};
