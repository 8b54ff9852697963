//! Whom a host trusts: `authorized_hosts` may send to it, `known_hosts` it sends to.
//!
//! Both are text, one host a line; `#` begins a comment, blank lines mean nothing. A line that
//! cannot be read fails the whole file: skipping it would silently drop what somebody meant.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::Fingerprint;
use crate::trust_file::{self, LineProblem, TrustFileError};

/// Who else may write the file would decide whom we trust.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The keys of the hosts that may send here. One `FINGERPRINT [NAME]` a line.
#[derive(Debug, Clone, Default)]
pub struct AuthorizedHosts(HashSet<Fingerprint>);

impl AuthorizedHosts {
    /// Reads `path`; a file that is not there authorises nobody.
    pub fn load(path: &Path) -> Result<Self, TrustFileError> {
        Self::parse(&read_or_empty(path)?, path)
    }

    /// Reads `text`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        parse_lines(text, path, authorised_line).map(|keys| Self(keys.into_iter().collect()))
    }

    /// Whether the host with this key may send here.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.0.contains(fingerprint)
    }
}

/// The keys of the hosts we send to. One `HOST FINGERPRINT` a line.
///
/// A host may have several lines; any of its keys is right. That is how a key is rotated.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts(HashMap<String, Vec<Fingerprint>>);

impl KnownHosts {
    /// Reads `path`; a file that is not there knows nobody.
    pub fn load(path: &Path) -> Result<Self, TrustFileError> {
        Self::parse(&read_or_empty(path)?, path)
    }

    /// Reads `text`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        let mut known = Self::default();
        for (host, fingerprint) in parse_lines(text, path, known_line)? {
            known.add(host, fingerprint);
        }
        Ok(known)
    }

    /// Adds one key of `host`; in memory only.
    pub fn add(&mut self, host: &str, fingerprint: Fingerprint) {
        self.0.entry(normal(host)).or_default().push(fingerprint);
    }

    /// The keys of `host`; empty where it is unknown. Names compare as DNS does, without case.
    pub fn of(&self, host: &str) -> &[Fingerprint] {
        self.0.get(&normal(host)).map_or(&[], Vec::as_slice)
    }
}

fn normal(host: &str) -> String {
    host.to_ascii_lowercase()
}

fn read_or_empty(path: &Path) -> Result<String, TrustFileError> {
    match trust_file::read(path, WRITABLE_BY_OTHERS) {
        Err(error) if error.is_absent() => Ok(String::new()),
        read => read,
    }
}

fn parse_lines<'a, T>(
    text: &'a str,
    path: &Path,
    parse: fn(&'a str) -> Result<T, LineProblem>,
) -> Result<Vec<T>, TrustFileError> {
    let mut parsed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let meant = line.split('#').next().unwrap_or_default().trim();
        if meant.is_empty() {
            continue;
        }
        let at = |problem| TrustFileError::Line { path: path.to_owned(), line: index + 1, problem };
        parsed.push(parse(meant).map_err(at)?);
    }
    Ok(parsed)
}

fn authorised_line(line: &str) -> Result<Fingerprint, LineProblem> {
    let mut words = line.split_whitespace();
    let fingerprint = words.next().unwrap_or_default().parse()?;
    let _name = words.next();
    ends(words).map(|()| fingerprint)
}

fn known_line(line: &str) -> Result<(&str, Fingerprint), LineProblem> {
    let mut words = line.split_whitespace();
    let host = words.next().unwrap_or_default();
    let fingerprint = words.next().ok_or(LineProblem::HostAlone)?.parse()?;
    ends(words).map(|()| (host, fingerprint))
}

fn ends<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<(), LineProblem> {
    words.next().map_or(Ok(()), |_| Err(LineProblem::Trailing))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
    const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    fn key(text: &str) -> Fingerprint {
        text.parse().unwrap()
    }

    #[test]
    fn authorised_hosts_are_keys_with_an_optional_name() {
        let text = format!("# who may send here\n\n{A} hosta # rack 4\n  {B}\r\n");
        let hosts = AuthorizedHosts::parse(&text, Path::new("authorized_hosts")).unwrap();
        assert!(hosts.contains(&key(A)) && hosts.contains(&key(B)));
    }

    #[test]
    fn a_commented_key_is_not_authorised() {
        let hosts = AuthorizedHosts::parse(&format!("#{A} hosta\n"), Path::new("f")).unwrap();
        assert!(!hosts.contains(&key(A)));
    }

    #[test]
    fn a_known_host_may_have_two_keys_and_any_case() {
        let text = format!("hostB {A}\nHOSTb {B} # the next one\nfe80::1 {A}\n");
        let known = KnownHosts::parse(&text, Path::new("known_hosts")).unwrap();
        assert_eq!(known.of("hostb"), [key(A), key(B)]);
        assert_eq!(known.of("fe80::1"), [key(A)]);
        assert_eq!(known.of("hostc"), []);
    }

    #[test]
    fn a_bad_line_names_its_file_and_its_number() {
        let error = KnownHosts::parse(&format!("a {A}\n\nb SHA256:short\n"), Path::new("/x/known"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "/x/known, line 3: not a fingerprint; expected SHA256: and 43 characters of base64"
        );
    }

    #[test]
    fn every_bad_line_fails_the_whole_file() {
        let known = ["hostb".to_owned(), format!("hostb {A} {B}"), format!("{A} hostb")];
        for line in known {
            assert!(KnownHosts::parse(&line, Path::new("f")).is_err(), "{line}");
        }
        let authorised = ["hosta".to_owned(), format!("{A} hosta hostb"), format!("hosta {A}")];
        for line in authorised {
            assert!(AuthorizedHosts::parse(&line, Path::new("f")).is_err(), "{line}");
        }
    }
}
