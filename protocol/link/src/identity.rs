//! The key pair by which a host is known, kept in a directory as SSH keeps its own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Fingerprint;
use crate::trust_file::{self, TrustFileError};

/// Where an installed host keeps `identity`, `authorized_hosts` and `known_hosts`.
pub const DIRECTORY: &str = "/etc/migrate";
/// The private key in its directory: PEM, PKCS #8, mode 0600.
pub const IDENTITY: &str = "identity";
/// See [`crate::AuthorizedHosts`].
pub const AUTHORIZED_HOSTS: &str = "authorized_hosts";
/// See [`crate::KnownHosts`].
pub const KNOWN_HOSTS: &str = "known_hosts";

/// Any bit for anybody but the owner makes a private key public.
const OPEN_TO_OTHERS: u32 = 0o077;

/// A host's private key and the certificate that carries its public key.
///
/// The certificate is made anew at every start and says nothing: peers look at the key only.
pub struct Identity {
    key: PrivateKeyDer<'static>,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// The identity in `directory`; made there (Ed25519) at the first use.
    ///
    /// Two that start at once end with the same identity. Fails where the key is not readable, may
    /// be read by others, or is no private key.
    pub fn load_or_create(directory: &Path) -> Result<Self, TrustFileError> {
        match Self::load(directory) {
            Err(error) if error.is_absent() => {
                create(directory)?;
                Self::load(directory)
            }
            loaded => loaded,
        }
    }

    /// The identity in `directory`; fails as [`Self::load_or_create`] does, and where there is none.
    pub fn load(directory: &Path) -> Result<Self, TrustFileError> {
        let path = directory.join(IDENTITY);
        let pem = trust_file::read(&path, OPEN_TO_OTHERS)?;
        Self::from_pem(&pem).map_err(|source| TrustFileError::Key { path, source })
    }

    fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        let pair = KeyPair::from_pem(pem)?;
        let certificate = CertificateParams::default().self_signed(&pair)?.der().clone();
        let fingerprint =
            Fingerprint::of(&certificate).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
        Ok(Self { key, certificate, fingerprint })
    }

    /// What peers write into their `authorized_hosts` and `known_hosts`.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.fingerprint).finish()
    }
}

/// Makes a key and gives it its name only when it is whole and on the disk.
fn create(directory: &Path) -> Result<(), TrustFileError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.map_err(TrustFileError::io("create", directory))?;
    let unfinished = directory.join(unfinished_name());
    let named = write_key(&unfinished).and_then(|()| name(&unfinished, directory));
    let _already_gone = fs::remove_file(&unfinished);
    named
}

/// Not to be met again, neither by another thread nor by what a crash left behind.
fn unfinished_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(".{IDENTITY}.{}.{}", std::process::id(), now.as_nanos())
}

fn write_key(path: &Path) -> Result<(), TrustFileError> {
    let pair = KeyPair::generate_for(&PKCS_ED25519)
        .map_err(|source| TrustFileError::Key { path: path.to_owned(), source })?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(TrustFileError::io("create", path))?;
    file.write_all(pair.serialize_pem().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(TrustFileError::io("write", path))
}

/// link(2) and not rename(2): rename would replace the key of somebody who was faster.
fn name(unfinished: &Path, directory: &Path) -> Result<(), TrustFileError> {
    let path = directory.join(IDENTITY);
    match fs::hard_link(unfinished, &path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(TrustFileError::io("create", &path)),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(error, TrustFileError::Key { .. }));
        assert_eq!(fs::read_to_string(path).unwrap(), "not a key");
    }

    #[test]
    fn a_fifo_in_its_place_does_not_hang() {
        let home = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&home.path().join(IDENTITY), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = Identity::load_or_create(home.path()).unwrap_err();
        assert!(matches!(error, TrustFileError::NotAPlainFile { .. }));
    }

    #[test]
    fn whoever_is_faster_wins_and_both_agree() {
        let home = tempfile::tempdir().unwrap();
        write_key(&home.path().join("mine")).unwrap();
        write_key(&home.path().join("theirs")).unwrap();
        name(&home.path().join("theirs"), home.path()).unwrap();
        name(&home.path().join("mine"), home.path()).unwrap();
        let kept = fs::read(home.path().join(IDENTITY)).unwrap();
        assert_eq!(kept, fs::read(home.path().join("theirs")).unwrap());
    }
}
