//! A fingerprint names a host's public key, as an operator reads and compares it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

const PREFIX: &str = "SHA256:";

/// SHA-256 of a key's SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
///
/// Written `SHA256:` and unpadded base64, as OpenSSH does. It covers the key and nothing else of the
/// certificate, so a certificate that is made anew keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of the key in `certificate`; fails where it is no X.509 certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self::of_key(parsed.subject_public_key_info().as_ref()))
    }

    /// The fingerprint of a SubjectPublicKeyInfo in DER.
    pub(crate) fn of_key(public_key: &[u8]) -> Self {
        Self(sha256(public_key))
    }
}

/// Through the TLS provider, so that one library does all our cryptography.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite named TLS13 is of TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint; expected SHA256: and 43 characters of base64")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let encoded = text.strip_prefix(PREFIX).ok_or(NotAFingerprint)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| NotAFingerprint)?;
        Ok(Self(bytes.try_into().map_err(|_| NotAFingerprint)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf abc | openssl dgst -sha256 -binary | base64 | tr -d =`
    const ABC: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";

    #[test]
    fn is_written_as_openssh_writes_it() {
        assert_eq!(Fingerprint(sha256(b"abc")).to_string(), ABC);
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(ABC.parse(), Ok(Fingerprint(sha256(b"abc"))));
    }

    #[test]
    fn refuses_everything_else() {
        let bad = [
            "",
            "SHA256:",
            "MD5:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0",
            "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa",
            // The same 32 bytes with other bits in the unused tail: one key must have one name.
            "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa1",
        ];
        for text in bad {
            assert_eq!(text.parse::<Fingerprint>(), Err(NotAFingerprint), "{text}");
        }
    }
}
