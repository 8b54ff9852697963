//! Why a key that a peer has proven to hold is not enough.

use crate::Fingerprint;
use crate::certificate::{Role, utc};

/// Why a peer is turned away. The words go after "its".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has listed it.
    #[error("key is not listed")]
    NotListed,
    /// Somebody has revoked it.
    #[error("key {0} is revoked")]
    RevokedKey(Fingerprint),
    /// Its CA is revoked, with all that it has signed.
    #[error("certificate is of the CA {0}, which is revoked")]
    RevokedAuthority(Fingerprint),
    /// Its certificate is revoked.
    #[error("certificate, serial {serial} of the CA {authority}, is revoked")]
    RevokedSerial {
        /// The certificate's number.
        serial: u64,
        /// The CA.
        authority: Fingerprint,
    },
    /// It is not listed, and its certificate is of a CA that nobody has listed for it.
    #[error("key is not listed, and its certificate is of the CA {0}, which is not trusted for it")]
    UnknownAuthority(Fingerprint),
    /// Its certificate is too old.
    #[error("certificate has expired: it was valid until {}", utc(*.until_unix_s))]
    Expired {
        /// Its last second, since 1970.
        until_unix_s: u64,
    },
    /// Its certificate is too young, or a clock is wrong.
    #[error("certificate is not valid before {}", utc(*.from_unix_s))]
    NotYet {
        /// Its first second, since 1970.
        from_unix_s: u64,
    },
    /// Its certificate is for the other side.
    #[error("certificate is not for a {0}")]
    WrongRole(Role),
    /// Its certificate is for names that its CA is not trusted for, or for another host.
    #[error("certificate is for {names}, and that is not right here")]
    ForeignName {
        /// With a comma between them.
        names: String,
    },
    /// It was not signed by its CA, or it cannot be read.
    #[error("certificate is not good")]
    BadCertificate(#[source] webpki::Error),
}
