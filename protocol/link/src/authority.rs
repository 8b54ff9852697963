//! A CA: a key that certifies the keys of hosts, so that peers need to know only this one.

mod issued;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use issued::{Issued, SERIAL_MAX};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::certificate::Role;
use crate::identity::{certificate_pem, key_failed, key_pair};
use crate::trust_file::{self, ContentProblem, TrustFileError};
use crate::{Fingerprint, atomic};

/// Where a CA keeps its key. Better on a host that does nothing else.
pub const AUTHORITY: &str = "/etc/migrate/ca";

const OPEN_TO_OTHERS: u32 = 0o077;

/// A CA's private key, and its certificate.
pub struct Authority {
    path: PathBuf,
    pair: KeyPair,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

/// What a CA says of a host.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Names and addresses of the host.
    pub names: Vec<String>,
    /// What it may be.
    pub roles: Vec<Role>,
    /// From when.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// Its number; the next one without.
    pub serial: Option<u64>,
}

/// A certificate that was signed.
#[derive(Debug)]
pub struct Issue {
    /// What `migrate identity certify` takes: PEM, the host's and the CA's.
    pub pem: String,
    /// Its number.
    pub serial: u64,
    /// The key that it is for.
    pub fingerprint: Fingerprint,
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A file of the CA cannot be used.
    #[error(transparent)]
    File(#[from] TrustFileError),
    /// A certificate must be for somebody.
    #[error("{0:?} is not the name of a host: a name or an address, without patterns")]
    Name(String),
    /// X.509 counts years with four digits.
    #[error("the certificate would be valid until after the year 9999")]
    TooLong,
    /// Two certificates with one number could not be revoked apart.
    #[error("serial {0} was given to another certificate of this CA")]
    SerialTaken(u64),
    /// The numbers that follow it would soon be used up.
    #[error("serial {0} is too high: at most {SERIAL_MAX}")]
    SerialTooHigh(u64),
    /// There are no more numbers.
    #[error("this CA has given out every serial number")]
    NoSerial,
    /// The library said no.
    #[error("sign the certificate")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// A new CA with this name, in the file `path`: key and certificate, as PEM, mode 0600. Fails
    /// with [`TrustFileError::Exists`] where there is one.
    pub fn create(path: &Path, name: &str) -> Result<Self, IssueError> {
        let params = authority_params(name)?;
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(IssueError::Sign)?;
        let certificate = params.self_signed(&pair).map_err(IssueError::Sign)?;
        let text = pair.serialize_pem() + &certificate_pem(certificate.der());
        match atomic::create(path, atomic::PRIVATE, text.as_bytes())? {
            true => Ok(Self::load(path)?),
            false => Err(TrustFileError::Exists { path: path.to_owned() }.into()),
        }
    }

    /// The CA in the file `path`, with the same checks as for a host's key.
    pub fn load(path: &Path) -> Result<Self, TrustFileError> {
        let pem = trust_file::read(path, OPEN_TO_OTHERS)?;
        let pair = key_pair(&pem, path)?;
        let unreadable = || key_failed(path)(rcgen::Error::CouldNotParseCertificate);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
        let certificate = certificate.map_err(|_| unreadable())?;
        let fingerprint = Fingerprint::of(&certificate).map_err(|_| unreadable())?;
        if fingerprint != Fingerprint::of_key(&pair.subject_public_key_info()) {
            let problem = ContentProblem::ForeignKey;
            return Err(TrustFileError::Content { path: path.to_owned(), problem });
        }
        Ok(Self { path: path.to_owned(), pair, certificate, fingerprint })
    }

    /// What peers write after `@cert-authority`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What it calls itself.
    pub fn name(&self) -> String {
        let certificate = webpki::EndEntityCert::try_from(&self.certificate);
        certificate.map_or_else(
            |_| String::new(),
            |own| own.valid_dns_names().collect::<Vec<_>>().join(", "),
        )
    }

    /// Certifies a public key (PEM; `from` is only named in errors), and writes down that it did.
    pub fn sign(&self, public_key: &str, from: &Path, terms: &Terms) -> Result<Issue, IssueError> {
        let problem = ContentProblem::NoPublicKey;
        let none = || TrustFileError::Content { path: from.to_owned(), problem };
        let key = SubjectPublicKeyInfoDer::from_pem_slice(public_key.as_bytes());
        let key = HostKey::find(&key.map_err(|_| none())?).ok_or_else(none)?;
        let fingerprint = Fingerprint::of_key(&key.subject_public_key_info());
        let mut issued = Issued::open(&self.path)?;
        let serial = issued.number(terms.serial)?;
        let issuer_params = authority_params(&self.name())?;
        let issuer = Issuer::from_params(&issuer_params, &self.pair);
        let params = host_params(terms, serial)?;
        let certificate = params.signed_by(&key, &issuer).map_err(IssueError::Sign)?;
        // First written down, then given away: one that nobody has written down cannot be revoked.
        issued.write_down(serial, fingerprint, terms)?;
        let pem = certificate_pem(certificate.der()) + &certificate_pem(&self.certificate);
        Ok(Issue { pem, serial, fingerprint })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority").field(&self.fingerprint).finish()
    }
}

fn authority_params(name: &str) -> Result<CertificateParams, IssueError> {
    let mut params = named(&[name.to_owned()])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn host_params(terms: &Terms, serial: u64) -> Result<CertificateParams, IssueError> {
    /// As `certificate::END_OF_TIME`, before which X.509 ends.
    const UNTIL_MAX_UNIX_S: u64 = 253_402_300_799;
    let until = terms.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if until > UNTIL_MAX_UNIX_S {
        return Err(IssueError::TooLong);
    }
    let mut params = named(&terms.names)?;
    params.not_before = terms.from.into();
    params.not_after = terms.until.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = terms
        .roles
        .iter()
        .map(|role| match role {
            Role::Source => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Destination => ExtendedKeyUsagePurpose::ServerAuth,
        })
        .collect();
    Ok(params)
}

/// The first name is the subject's, and all of them are those that it is for.
fn named(names: &[String]) -> Result<CertificateParams, IssueError> {
    let first = names.first().ok_or_else(|| IssueError::Name(String::new()))?;
    for name in names {
        rustls::pki_types::ServerName::try_from(name.as_str())
            .map_err(|_| IssueError::Name(name.clone()))?;
    }
    let mut params = CertificateParams::new(names).map_err(IssueError::Sign)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    Ok(params)
}

/// A public key that rcgen can put into a certificate.
struct HostKey {
    algorithm: &'static SignatureAlgorithm,
    point: Vec<u8>,
}

impl HostKey {
    /// A SubjectPublicKeyInfo ends with the point and is otherwise the same for every key of its
    /// algorithm: the right algorithm is the one that makes the same bytes of that point again.
    fn find(encoded: &SubjectPublicKeyInfoDer<'_>) -> Option<Self> {
        let algorithms =
            [(&PKCS_ED25519, 32), (&PKCS_ECDSA_P256_SHA256, 65), (&PKCS_ECDSA_P384_SHA384, 97)];
        algorithms.into_iter().find_map(|(algorithm, bytes)| {
            let at = encoded.len().checked_sub(bytes)?;
            let key = Self { algorithm, point: encoded[at..].to_vec() };
            (key.subject_public_key_info() == **encoded).then_some(key)
        })
    }
}

impl PublicKeyData for HostKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
