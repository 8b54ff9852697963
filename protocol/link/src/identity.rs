//! The key pair by which a host is known, kept in a directory as SSH keeps its own.
//!
//! A file of an identity is PEM: the private key, and then, where a CA has certified the key, its
//! certificate and the CA's. One file, so that a key is never met with another key's certificate.

mod rotation;

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use rotation::{OldKey, Rotation};

use crate::trust_file::{self, ContentProblem, TrustFileError};
use crate::{Credentials, Description, Fingerprint, atomic};

/// Where an installed host keeps `identity`, `authorized_hosts` and `known_hosts`.
pub const DIRECTORY: &str = "/etc/migrate";
/// The private key in its directory: PEM, PKCS #8, mode 0600.
pub const IDENTITY: &str = "identity";

/// Any bit for anybody but the owner makes a private key public.
const OPEN_TO_OTHERS: u32 = 0o077;

/// A host's private key and the certificate that carries its public key.
///
/// Without a CA the certificate is made anew at every start and says nothing: peers look at the key
/// only.
pub struct Identity {
    key: PrivateKeyDer<'static>,
    /// The host's, and that of its CA if it has one.
    chain: Vec<CertificateDer<'static>>,
    credentials: Credentials,
    public_key: String,
}

impl Identity {
    /// The identity in `directory`; made there (Ed25519) at the first use.
    ///
    /// Two that start at once end with the same identity. Fails where the key is not readable, may
    /// be read by others, or is no private key.
    pub fn load_or_create(directory: &Path) -> Result<Self, TrustFileError> {
        match Self::load(directory) {
            Err(error) if error.is_absent() => {
                let _made_or_met = make(&directory.join(IDENTITY))?;
                Self::load(directory)
            }
            loaded => loaded,
        }
    }

    /// A new identity in `directory`; fails with [`TrustFileError::Exists`] where there is one.
    pub fn create(directory: &Path) -> Result<Self, TrustFileError> {
        let path = directory.join(IDENTITY);
        match make(&path)? {
            true => Self::load(directory),
            false => Err(TrustFileError::Exists { path }),
        }
    }

    /// The identity in `directory`; fails as [`Self::load_or_create`] does, and where there is none.
    pub fn load(directory: &Path) -> Result<Self, TrustFileError> {
        Self::read(&directory.join(IDENTITY))
    }

    fn read(path: &Path) -> Result<Self, TrustFileError> {
        let pem = trust_file::read(path, OPEN_TO_OTHERS)?;
        Self::from_pem(&pem, path)
    }

    fn from_pem(pem: &str, path: &Path) -> Result<Self, TrustFileError> {
        let pair = key_pair(pem, path)?;
        let failed = key_failed(path);
        let chain = match certificates(pem, path)? {
            Some(chain) => chain,
            None => vec![self_signed(&pair).map_err(failed)?],
        };
        let unreadable = |_| key_failed(path)(rcgen::Error::CouldNotParseCertificate);
        let credentials = Credentials::new(&chain[0], &chain[1..]).map_err(unreadable)?;
        let own = self_signed(&pair).map_err(key_failed(path))?;
        if Fingerprint::of(&own).map_err(unreadable)? != credentials.fingerprint() {
            let problem = ContentProblem::ForeignKey;
            return Err(TrustFileError::Content { path: path.to_owned(), problem });
        }
        let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        Ok(Self { key, chain, credentials, public_key: pair.public_key_pem() })
    }

    /// What peers write into their `authorized_hosts` and `known_hosts`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.credentials.fingerprint()
    }

    /// What a CA signs: SubjectPublicKeyInfo as PEM.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// What its certificate says; `None` where the key is all there is.
    pub fn description(&self) -> Option<Result<Description, crate::Refused>> {
        self.credentials.description()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint()).finish()
    }
}

/// Gives the key of `directory` that a certificate is for (the one in use, or the next) this
/// certificate; `pem` is what a CA has signed, `from` is only named in errors. Says which file it is.
pub fn certify(directory: &Path, pem: &str, from: &Path) -> Result<PathBuf, TrustFileError> {
    let problem = |problem| TrustFileError::Content { path: from.to_owned(), problem };
    let chain = certificates(pem, from)?.ok_or(problem(ContentProblem::NotTwoCertificates))?;
    let unreadable = |_| problem(ContentProblem::NotTwoCertificates);
    let shown = Credentials::new(&chain[0], &chain[1..]).map_err(unreadable)?;
    let described = shown.description().ok_or(problem(ContentProblem::NotTwoCertificates))?;
    described.map_err(|source| TrustFileError::Certificate { path: from.to_owned(), source })?;
    let _lock = atomic::lock(directory)?;
    for name in [IDENTITY, rotation::NEXT] {
        let path = directory.join(name);
        let text = match trust_file::read(&path, OPEN_TO_OTHERS) {
            Err(error) if error.is_absent() => continue,
            read => read?,
        };
        let pair = key_pair(&text, &path)?;
        let own = self_signed(&pair).map_err(key_failed(&path))?;
        if Fingerprint::of(&own).map_err(unreadable)? == shown.fingerprint() {
            let whole =
                pair.serialize_pem() + &chain.iter().map(certificate_pem).collect::<String>();
            Identity::from_pem(&whole, &path)?;
            atomic::replace(&path, atomic::PRIVATE, whole.as_bytes())?;
            return Ok(path);
        }
    }
    Err(problem(ContentProblem::ForeignKey))
}

pub(crate) fn certificate_pem(certificate: &CertificateDer<'static>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), config)
}

pub(crate) fn key_pair(pem: &str, path: &Path) -> Result<KeyPair, TrustFileError> {
    let problem = ContentProblem::NoKey;
    let none = |_| TrustFileError::Content { path: path.to_owned(), problem };
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(none)?;
    KeyPair::try_from(&key).map_err(key_failed(path))
}

/// Those of a host and of its CA; `None` where there are none.
fn certificates(
    pem: &str,
    path: &Path,
) -> Result<Option<Vec<CertificateDer<'static>>>, TrustFileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Ok(None),
        Ok(found) if found.len() == 2 => Ok(Some(found)),
        _ => {
            let problem = ContentProblem::NotTwoCertificates;
            Err(TrustFileError::Content { path: path.to_owned(), problem })
        }
    }
}

fn self_signed(pair: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    Ok(CertificateParams::default().self_signed(pair)?.der().clone())
}

pub(crate) fn key_failed(path: &Path) -> impl FnOnce(rcgen::Error) -> TrustFileError {
    let path = path.to_owned();
    move |source| TrustFileError::Key { path, source }
}

/// A new key under this name; `false` where there is one.
fn make(path: &Path) -> Result<bool, TrustFileError> {
    let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(key_failed(path))?;
    atomic::create(path, atomic::PRIVATE, pair.serialize_pem().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn is_made_once_and_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("etc/migrate");
        let first = Identity::load_or_create(&home).unwrap().fingerprint();
        assert_eq!(Identity::load_or_create(&home).unwrap().fingerprint(), first);
        let names: Vec<_> = fs::read_dir(&home).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [IDENTITY]);
    }

    #[test]
    fn is_not_made_over_another() {
        let home = tempfile::tempdir().unwrap();
        let first = Identity::create(home.path()).unwrap().fingerprint();
        let refused = Identity::create(home.path()).unwrap_err();
        assert!(matches!(refused, TrustFileError::Exists { .. }), "{refused}");
        assert_eq!(Identity::load(home.path()).unwrap().fingerprint(), first);
    }

    #[test]
    fn is_private_from_its_first_moment() {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap();
        assert_eq!(fs::metadata(home.path().join(IDENTITY)).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Identity::load_or_create(home.path()).unwrap();
        let path = home.path().join(IDENTITY);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(home.path()).unwrap_err();
            assert!(matches!(error, TrustFileError::Exposed { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("chmod 0600"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(IDENTITY);
        fs::write(&path, "not a key").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_or_create(home.path()).unwrap_err();
        let problem = ContentProblem::NoKey;
        assert!(matches!(error, TrustFileError::Content { problem: p, .. } if p == problem));
        assert_eq!(fs::read_to_string(path).unwrap(), "not a key");
    }

    #[test]
    fn a_fifo_in_its_place_does_not_hang() {
        let home = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&home.path().join(IDENTITY), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = Identity::load_or_create(home.path()).unwrap_err();
        assert!(matches!(error, TrustFileError::NotAPlainFile { .. }));
    }
}
