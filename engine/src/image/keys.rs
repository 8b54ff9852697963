//! Who may read an image: the keys of age (age-encryption.org/v1), with which its files are sealed.

use crate::error::{Error, Object, OnObject as _};
use age::stream::{StreamReader, StreamWriter};
use age::x25519::Recipient;
use age::{DecryptError, Decryptor, Encryptor, IdentityFile};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Public keys; without any, an image is not sealed.
#[derive(Clone, Debug, Default)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Each is a key, `age1…`, or a file that has one a line.
    pub fn read(wanted: &[String]) -> Result<Self, Error> {
        let mut recipients = Vec::new();
        for one in wanted {
            match one.parse() {
                Ok(recipient) => recipients.push(recipient),
                Err(_) => recipients.extend(listed(Path::new(one))?),
            }
        }
        Ok(Self(recipients))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn seal(&self, file: File) -> io::Result<StreamWriter<File>> {
        let recipients = self.0.iter().map(|recipient| recipient as &dyn age::Recipient);
        Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(file)
    }
}

/// Empty lines and those that begin with `#` are left out.
fn listed(path: &Path) -> Result<Vec<Recipient>, Error> {
    let object = || Object::File { path: path.display().to_string() };
    let text = fs::read_to_string(path).on("read the recipients in", object)?;
    let mut recipients = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // What it has instead is not said: somebody may have given a file of secrets.
        let no_recipient = |_| {
            let why = format!("line {number} is no recipient of age (age1…)");
            Error::invalid("read the recipients in", object(), why)
        };
        recipients.push(line.parse().map_err(no_recipient)?);
    }
    match recipients.is_empty() {
        false => Ok(recipients),
        true => Err(Error::invalid("read the recipients in", object(), "it has none")),
    }
}

/// Secret keys, which are read and never written.
#[derive(Clone, Default)]
pub struct Identities(Arc<Vec<Box<dyn age::Identity + Send + Sync>>>);

impl Identities {
    /// From files that have one a line, as `age-keygen` writes them.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut identities = Vec::new();
        for path in paths {
            let object = || Object::File { path: path.display().to_string() };
            let file = File::open(path).map(io::BufReader::new);
            let file =
                file.and_then(IdentityFile::from_buffer).on("read the identities in", object)?;
            let found = file.into_identities().map_err(io::Error::other);
            let found = found.on("read the identities in", object)?;
            if found.is_empty() {
                return Err(Error::invalid("read the identities in", object(), "it has none"));
            }
            identities.extend(found);
        }
        Ok(Self(Arc::new(identities)))
    }

    pub(super) fn open(&self, file: File) -> io::Result<StreamReader<File>> {
        if self.0.is_empty() {
            let why = "it is encrypted, and no identity was given (`--identity FILE`)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let identities = self.0.iter().map(|identity| identity.as_ref() as &dyn age::Identity);
        let opened = Decryptor::new(file).and_then(|sealed| sealed.decrypt(identities));
        opened.map_err(|error| match error {
            DecryptError::Io(error) => damaged(error),
            DecryptError::NoMatchingKeys => io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is encrypted to others: no identity that was given opens it",
            ),
            _ => changed(),
        })
    }
}

/// A key that is made for a test and forgotten with it.
#[cfg(test)]
pub(crate) fn pair() -> (Recipients, Identities) {
    let identity = age::x25519::Identity::generate();
    let recipients = Recipients(vec![identity.to_public()]);
    (recipients, Identities(Arc::new(vec![Box::new(identity)])))
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// What does not decrypt says so in words of its own.
pub(super) fn damaged(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => changed(),
        _ => error,
    }
}

fn changed() -> io::Error {
    let why = "it was changed since it was encrypted, or it is cut off";
    io::Error::new(io::ErrorKind::InvalidData, why)
}
