//! What a host shows in the handshake, and what of it a CA has certified.
//!
//! A certificate is two of X.509: that of the host's key, signed by the CA, and the CA's own, signed
//! by itself. The CA is known by the fingerprint of its key, as a host is by its own; so a peer may
//! bring the CA's certificate along, and no store of roots is needed anywhere, the web's least of all.

use std::fmt;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{Fingerprint, Refused};

/// What a certificate lets a host be: sources are clients of TLS, destinations servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Gives trees away.
    Source,
    /// Takes them in.
    Destination,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Destination => "destination",
        })
    }
}

impl Role {
    /// RFC 5280 section 4.2.1.12; a certificate must name what it is for.
    fn usage(self) -> KeyUsage {
        /// id-kp-serverAuth and id-kp-clientAuth, without tag and length.
        const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
        const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
        KeyUsage::required(match self {
            Self::Source => CLIENT,
            Self::Destination => SERVER,
        })
    }
}

/// What a peer has shown: a key that it holds, and perhaps a certificate for it, which says nothing
/// until a CA that we trust has said it.
#[derive(Debug, Clone)]
pub struct Credentials {
    key: CertificateDer<'static>,
    fingerprint: Fingerprint,
    authority: Option<(CertificateDer<'static>, Fingerprint)>,
}

/// What a CA says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) authority: Fingerprint,
    pub(crate) serial: u64,
    /// Names, without addresses.
    pub(crate) names: Vec<String>,
}

impl Credentials {
    /// What comes after the CA's certificate is not looked at.
    pub(crate) fn new(
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<Self, rustls::Error> {
        let authority = match others.first() {
            Some(other) => Some((other.clone().into_owned(), Fingerprint::of(other)?)),
            None => None,
        };
        let fingerprint = Fingerprint::of(key)?;
        Ok(Self { key: key.clone().into_owned(), fingerprint, authority })
    }

    /// The key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The key of the CA that the certificate claims to be of.
    pub fn authority(&self) -> Option<Fingerprint> {
        self.authority.as_ref().map(|(_, fingerprint)| *fingerprint)
    }

    /// What its CA says of the key, if that is trusted, for this role at this time.
    pub(crate) fn certified(&self, role: Role, now: UnixTime) -> Result<Certified, Refused> {
        let (certificate, authority) = self.authority.as_ref().ok_or(Refused::NotListed)?;
        let anchor = anchor_from_trusted_cert(certificate).map_err(Refused::BadCertificate)?;
        let host = self.end_entity()?;
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        host.verify_for_usage(algorithms, &[anchor], &[], now, role.usage(), None, None)
            .map_err(|error| explain(error, role))?;
        Ok(Certified { authority: *authority, serial: serial(&host)?, names: names(&host) })
    }

    /// Whether its certificate, if that is good, is for this host: a name or an address.
    pub(crate) fn is_for(&self, host: &str) -> Result<(), Refused> {
        let certificate = self.end_entity()?;
        let is_right = ServerName::try_from(host)
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok());
        if is_right {
            return Ok(());
        }
        Err(Refused::ForeignName { names: names(&certificate).join(", ") })
    }

    fn end_entity(&self) -> Result<EndEntityCert<'_>, Refused> {
        EndEntityCert::try_from(&self.key).map_err(Refused::BadCertificate)
    }

    /// What the certificate says of itself, for the eyes of an operator; `None` where there is none.
    pub fn description(&self) -> Option<Result<Description, Refused>> {
        let (certificate, authority) = self.authority.as_ref()?;
        Some(self.describe(certificate, *authority))
    }

    fn describe(
        &self,
        certificate: &CertificateDer<'_>,
        authority: Fingerprint,
    ) -> Result<Description, Refused> {
        let host = self.end_entity()?;
        let at = |unix_s| self.any_role(UnixTime::since_unix_epoch(Duration::from_secs(unix_s)));
        // What it says when it is asked too early and too late is from when until when it is good.
        let from_unix_s = match at(0) {
            Err(Refused::NotYet { from_unix_s }) => from_unix_s,
            Err(refused) => return Err(refused),
            Ok(()) => 0,
        };
        let until_unix_s = match at(END_OF_TIME) {
            Err(Refused::Expired { until_unix_s }) => until_unix_s,
            Err(refused) => return Err(refused),
            Ok(()) => END_OF_TIME,
        };
        at(from_unix_s)?;
        let within = UnixTime::since_unix_epoch(Duration::from_secs(from_unix_s));
        let roles = [Role::Source, Role::Destination];
        let roles =
            roles.into_iter().filter(|role| self.certified(*role, within).is_ok()).collect();
        let authority_names = EndEntityCert::try_from(certificate).map(|own| names(&own));
        Ok(Description {
            authority,
            authority_name: authority_names.unwrap_or_default().join(", "),
            serial: serial(&host)?,
            names: names(&host),
            from_unix_s,
            until_unix_s,
            roles,
        })
    }

    fn any_role(&self, now: UnixTime) -> Result<(), Refused> {
        match self.certified(Role::Source, now) {
            Err(Refused::WrongRole(_)) => self.certified(Role::Destination, now).map(drop),
            other => other.map(drop),
        }
    }
}

/// 9999-12-31, the last day that X.509 knows.
const END_OF_TIME: u64 = 253_402_300_799;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The CA's key.
    pub authority: Fingerprint,
    /// What the CA calls itself.
    pub authority_name: String,
    /// Its number among the CA's.
    pub serial: u64,
    /// The names of the host. Addresses that it is for are not among them.
    pub names: Vec<String>,
    /// Its first second, since 1970.
    pub from_unix_s: u64,
    /// Its last second, since 1970.
    pub until_unix_s: u64,
    /// What the host may be with it.
    pub roles: Vec<Role>,
}

fn names(certificate: &EndEntityCert<'_>) -> Vec<String> {
    certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

/// Ours have 64 bits; a longer one could not be revoked by its number, so it is not taken.
fn serial(certificate: &EndEntityCert<'_>) -> Result<u64, Refused> {
    let bytes = certificate.serial();
    let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    if digits.len() > 8 {
        return Err(Refused::BadCertificate(webpki::Error::InvalidSerialNumber));
    }
    Ok(digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn explain(error: webpki::Error, role: Role) -> Refused {
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            Refused::Expired { until_unix_s: not_after.as_secs() }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            Refused::NotYet { from_unix_s: not_before.as_secs() }
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => Refused::WrongRole(role),
        error => Refused::BadCertificate(error),
    }
}

/// "2027-02-20 12:00 UTC".
pub fn utc(unix_s: u64) -> String {
    use time::{OffsetDateTime, macros::format_description};
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let moment =
        i64::try_from(unix_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let text = moment.and_then(|moment| moment.format(&format).ok());
    text.unwrap_or_else(|| "the end of time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `date -u -d @N`
    #[test]
    fn dates_are_those_of_date() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_803_124_740), "2027-02-20 11:59 UTC");
        assert_eq!(utc(END_OF_TIME), "9999-12-31 23:59 UTC");
    }
}
