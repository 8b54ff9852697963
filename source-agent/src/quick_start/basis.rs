//! What an image was made of. When any of it is another, the image is stale.

use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Looked at when the program is started: what changes while it runs is not what it has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Basis {
    kernel: String,
    migrate: String,
    command: Vec<String>,
    /// The program and the files that the operator has named, each with its digest; none of one
    /// that is not there.
    files: BTreeMap<String, Option<String>>,
}

impl Basis {
    pub(super) fn look(command: &[String], named: &[PathBuf]) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let program = command.first().map(Path::new);
        for path in program.into_iter().chain(named.iter().map(AsRef::as_ref)) {
            let digest = digest(path).map_err(|error| {
                io::Error::new(error.kind(), format!("read {}: {error}", path.display()))
            })?;
            files.insert(path.display().to_string(), digest);
        }
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            migrate: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_vec(),
            files,
        })
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// On the disk before there is an image that it tells of.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()
    }

    /// Why an image that was made of `self` does not fit what is there `now`.
    pub(super) fn stale(&self, now: &Self) -> Option<String> {
        let were = [("the kernel", &self.kernel), ("migrate", &self.migrate)];
        for ((what, was), is) in were.into_iter().zip([&now.kernel, &now.migrate]) {
            if was != is {
                return Some(format!("{what} was {was} and is {is}"));
            }
        }
        if self.command != now.command {
            return Some("the command line is another".to_owned());
        }
        let paths = self.files.keys().chain(now.files.keys());
        let changed: Vec<&str> = paths
            .filter(|path| self.files.get(*path) != now.files.get(*path))
            .map(String::as_str)
            .collect();
        changed.first().map(|path| format!("{path} has changed"))
    }
}

/// Of the content. Of a directory: of all names in it, and what they lead to.
fn digest(path: &Path) -> io::Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    match add(path, &mut hasher) {
        Ok(()) => Ok(Some(hasher.finalize().to_hex().to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn add(path: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_file() {
        hasher.update(&found.len().to_le_bytes());
        return hasher.update_reader(File::open(path)?).map(drop);
    }
    if !found.is_dir() {
        return Err(io::Error::other("it is neither a file nor a directory"));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        let bytes = name.as_encoded_bytes();
        hasher.update(&bytes.len().to_le_bytes()).update(bytes);
        match add(&path.join(&name), hasher) {
            // A link that leads nowhere.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            added => added?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis(kernel: &str, command: &str, files: &[(&str, Option<&str>)]) -> Basis {
        let digests = files.iter().map(|(path, it)| ((*path).into(), it.map(str::to_owned)));
        Basis {
            kernel: kernel.into(),
            migrate: "1".into(),
            command: vec![command.into()],
            files: digests.collect(),
        }
    }

    #[test]
    fn whatever_is_another_makes_it_stale_and_is_named() {
        let was = basis("6.1", "/a", &[("/a", Some("0")), ("/b", Some("1"))]);
        assert_eq!(was.stale(&was.clone()), None);
        let why = |now: &Basis| was.stale(now).unwrap();
        let same: &[(&str, Option<&str>)] = &[("/a", Some("0")), ("/b", Some("1"))];
        assert_eq!(why(&basis("6.12", "/a", same)), "the kernel was 6.1 and is 6.12");
        assert!(why(&Basis { migrate: "2".into(), ..was.clone() }).contains("migrate was 1"));
        assert!(why(&basis("6.1", "/c", same)).contains("command line"));
        for b in [Some("2"), None] {
            let now = basis("6.1", "/a", &[("/a", Some("0")), ("/b", b)]);
            assert_eq!(why(&now), "/b has changed");
        }
        assert_eq!(why(&basis("6.1", "/a", &same[..1])), "/b has changed");
    }

    #[test]
    fn a_digest_tells_of_everything_in_a_directory() {
        let top = tempfile::tempdir().unwrap();
        let of_top = || digest(top.path()).unwrap();
        let mut seen = vec![of_top()];
        let mut is_new = || {
            let now = of_top();
            let is_new = !seen.contains(&now);
            seen.push(now);
            is_new
        };
        fs::create_dir(top.path().join("in")).unwrap();
        assert!(is_new());
        fs::write(top.path().join("in/a"), "one").unwrap();
        assert!(is_new());
        fs::write(top.path().join("in/a"), "two").unwrap();
        assert!(is_new());
        assert!(!is_new());
        fs::rename(top.path().join("in/a"), top.path().join("in/b")).unwrap();
        assert!(is_new());
        assert_eq!(digest(&top.path().join("gone")).unwrap(), None);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let top = tempfile::tempdir().unwrap();
        let (path, basis) = (top.path().join("basis"), basis("6.1", "/a", &[("/a", None)]));
        basis.write(&path).unwrap();
        assert_eq!(Basis::read(&path).unwrap(), basis);
        fs::write(&path, "{").unwrap();
        assert!(Basis::read(&path).is_err());
    }
}
