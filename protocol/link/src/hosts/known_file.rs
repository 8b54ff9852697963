//! `known_hosts` as a text that is changed line by line: comments, and what else is in it, stay.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use super::line::{self, Known};
use super::{KNOWN_HOSTS, TrustFileError, normal, read_or_empty};
use crate::{Fingerprint, atomic};

/// `known_hosts`, locked for one who changes it.
#[derive(Debug)]
pub struct KnownHostsFile {
    path: PathBuf,
    text: String,
    _lock: Flock<File>,
}

/// One `HOST FINGERPRINT` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// Counted from 1.
    pub line: usize,
    /// As it is written there.
    pub host: String,
    /// Its key.
    pub fingerprint: Fingerprint,
}

impl KnownHostsFile {
    /// The `known_hosts` of `directory`; waits while somebody else changes it. Fails where a line
    /// cannot be read.
    pub fn open(directory: &Path) -> Result<Self, TrustFileError> {
        atomic::make_directory(directory)?;
        let lock = atomic::lock(directory)?;
        let named = directory.join(KNOWN_HOSTS);
        // What a symbolic link leads to is replaced, and not the link.
        let path = named.canonicalize().unwrap_or(named);
        let text = read_or_empty(&path)?;
        let file = Self { path, text, _lock: lock };
        file.entries().map(|_| file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every line that means something, without its comment, with its number from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines =
            self.text.lines().enumerate().map(|(index, text)| (index + 1, line::meaning(text)));
        lines.filter(|(_, text)| !text.is_empty())
    }

    /// Every key of every host.
    pub fn entries(&self) -> Result<Vec<KnownHost>, TrustFileError> {
        let lines = line::parse_all(&self.text, &self.path, line::known)?;
        let host = |(line, known)| match known {
            Known::Host(host, fingerprint) => {
                Some(KnownHost { line, host: host.to_owned(), fingerprint })
            }
            Known::Marked(_) => None,
        };
        Ok(lines.into_iter().filter_map(host).collect())
    }

    /// The keys of one host.
    pub fn of(&self, host: &str) -> Result<Vec<KnownHost>, TrustFileError> {
        let mut entries = self.entries()?;
        entries.retain(|entry| normal(&entry.host) == normal(host));
        Ok(entries)
    }

    /// Adds a line at the end.
    pub fn add(&mut self, host: &str, fingerprint: Fingerprint) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(&format!("{} {fingerprint}\n", normal(host)));
    }

    /// Takes out every line of a host.
    pub fn remove(&mut self, host: &str) {
        let is_theirs = |text: &str| {
            let known = line::known(line::meaning(text));
            matches!(known, Ok(Known::Host(name, _)) if normal(name) == normal(host))
        };
        let kept = self.text.split_inclusive('\n').filter(|line| !is_theirs(line));
        self.text = kept.collect();
    }

    /// Puts it in the place of what was there; fails before that where it could not be read again.
    pub fn save(self) -> Result<(), TrustFileError> {
        self.entries()?;
        let mode = self.path.metadata().map_or(atomic::PUBLIC, |about| about.permissions().mode());
        atomic::replace(&self.path, mode & 0o777, self.text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const A: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
    const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    fn home(text: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(KNOWN_HOSTS), text).unwrap();
        home
    }

    fn text(home: &tempfile::TempDir) -> String {
        fs::read_to_string(home.path().join(KNOWN_HOSTS)).unwrap()
    }

    #[test]
    fn a_host_is_added_and_removed_and_the_rest_stays() {
        let before = format!("# ours\nhosta {A} # rack 4\n\n@cert-authority {B} *.example");
        let home = home(&before);
        let mut file = KnownHostsFile::open(home.path()).unwrap();
        file.add("hostB", B.parse().unwrap());
        file.save().unwrap();
        assert_eq!(text(&home), format!("{before}\nhostb {B}\n"));
        let mut file = KnownHostsFile::open(home.path()).unwrap();
        let found = file.of("HOSTA").unwrap();
        assert_eq!((found.len(), found[0].line, found[0].host.as_str()), (1, 2, "hosta"));
        file.remove("HostA");
        file.save().unwrap();
        let expected = format!("# ours\n\n@cert-authority {B} *.example\nhostb {B}\n");
        assert_eq!(text(&home), expected);
    }

    #[test]
    fn a_file_that_is_not_there_is_made_and_a_link_stays_a_link() {
        let empty = tempfile::tempdir().unwrap();
        let mut file = KnownHostsFile::open(empty.path()).unwrap();
        file.add("hosta", A.parse().unwrap());
        file.save().unwrap();
        assert_eq!(text(&empty), format!("hosta {A}\n"));

        let linked = tempfile::tempdir().unwrap();
        let link = linked.path().join(KNOWN_HOSTS);
        std::os::unix::fs::symlink(empty.path().join(KNOWN_HOSTS), &link).unwrap();
        let mut file = KnownHostsFile::open(linked.path()).unwrap();
        file.remove("hosta");
        file.save().unwrap();
        assert!(link.is_symlink() && text(&empty).is_empty());
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let home = home("");
        for host in ["a b", "#", "@revoked", ""] {
            let mut file = KnownHostsFile::open(home.path()).unwrap();
            file.add(host, A.parse().unwrap());
            let is_there = file.of(host).is_ok_and(|found| !found.is_empty());
            assert!(!is_there, "{host}");
        }
        fs::write(home.path().join(KNOWN_HOSTS), "garbage\n").unwrap();
        assert!(KnownHostsFile::open(home.path()).is_err());
    }
}
