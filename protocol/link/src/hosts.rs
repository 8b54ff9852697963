//! Whom a host trusts: `authorized_hosts` may send to it, `known_hosts` it sends to, and
//! `revoked_hosts` neither.
//!
//! All are text, one host a line; `#` begins a comment, blank lines mean nothing. A line that
//! cannot be read fails the whole file: skipping it would silently drop what somebody meant.
//!
//! In the first two, `@cert-authority FINGERPRINT [PATTERNS]` trusts every host that has a
//! certificate of this CA for a name that the patterns match, and `@revoked FINGERPRINT` nobody with
//! this key. What is revoked anywhere is out, whatever else says otherwise.

mod known_file;
mod line;
mod pattern;
mod revoked;

use std::collections::{HashMap, HashSet};
use std::path::Path;

pub use known_file::{KnownHost, KnownHostsFile};
use line::{Authorised, Known, Marked};
use pattern::Patterns;
pub use revoked::RevokedHosts;
use rustls::pki_types::UnixTime;

use crate::certificate::{Certified, Role};
use crate::trust_file::{self, LineProblem, TrustFileError, WRITABLE_BY_OTHERS};
use crate::{Credentials, Fingerprint, Refused};

/// See [`AuthorizedHosts`].
pub const AUTHORIZED_HOSTS: &str = "authorized_hosts";
/// See [`KnownHosts`].
pub const KNOWN_HOSTS: &str = "known_hosts";
/// See [`RevokedHosts`].
pub const REVOKED_HOSTS: &str = "revoked_hosts";

/// The keys of the hosts that may send here. One `FINGERPRINT [NAME]` a line.
#[derive(Debug, Clone, Default)]
pub struct AuthorizedHosts {
    keys: HashSet<Fingerprint>,
    marks: Marks,
}

impl AuthorizedHosts {
    /// Reads `authorized_hosts` and `revoked_hosts` in `directory`; a file that is not there
    /// authorises, or revokes, nobody.
    pub fn load(directory: &Path) -> Result<Self, TrustFileError> {
        let path = directory.join(AUTHORIZED_HOSTS);
        let mut hosts = Self::parse(&read_or_empty(&path)?, &path)?;
        hosts.marks.revoked_hosts = RevokedHosts::load(directory)?;
        Ok(hosts)
    }

    /// Reads `text`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        let mut hosts = Self::default();
        for (_, line) in line::parse_all(text, path, line::authorised)? {
            match line {
                Authorised::Host(key) => hosts.add(key),
                Authorised::Marked(marked) => hosts.marks.add(marked),
            }
        }
        Ok(hosts)
    }

    /// Authorises one key; in memory only.
    pub fn add(&mut self, key: Fingerprint) {
        self.keys.insert(key);
    }

    /// Whether this key is listed and not revoked.
    pub fn contains(&self, key: &Fingerprint) -> bool {
        self.keys.contains(key) && !self.marks.revokes(key)
    }

    /// Whether a host that has shown this may send here now, and the names that a CA of ours has
    /// certified for it. One whose key is listed needs no certificate, and has no name without.
    pub fn admit(&self, shown: &Credentials) -> Result<Vec<String>, Refused> {
        let key = shown.fingerprint();
        if self.marks.revokes(&key) {
            return Err(Refused::RevokedKey(key));
        }
        let certified = match self.marks.certified(shown, Role::Source) {
            Some(certified) => certified.and_then(|certified| self.named(certified)),
            None => Err(shown.authority().map_or(Refused::NotListed, Refused::UnknownAuthority)),
        };
        match certified {
            Err(_) if self.keys.contains(&key) => Ok(Vec::new()),
            other => other,
        }
    }

    fn named(&self, certified: Certified) -> Result<Vec<String>, Refused> {
        let Certified { authority, names, .. } = certified;
        let is_right = |name: &String| self.marks.trusts(&authority, name);
        if names.iter().any(is_right) || (names.is_empty() && self.marks.trusts(&authority, "")) {
            return Ok(names.into_iter().filter(is_right).collect());
        }
        Err(Refused::ForeignName { names: names.join(", ") })
    }
}

/// The keys of the hosts we send to. One `HOST FINGERPRINT` a line.
///
/// A host may have several lines; any of its keys is right. That is how a key is rotated.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    keys: HashMap<String, Vec<Fingerprint>>,
    marks: Marks,
}

impl KnownHosts {
    /// Reads `known_hosts` and `revoked_hosts` in `directory`; a file that is not there knows, or
    /// revokes, nobody.
    pub fn load(directory: &Path) -> Result<Self, TrustFileError> {
        let path = directory.join(KNOWN_HOSTS);
        let mut known = Self::parse(&read_or_empty(&path)?, &path)?;
        known.marks.revoked_hosts = RevokedHosts::load(directory)?;
        Ok(known)
    }

    /// Reads `text`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        let mut known = Self::default();
        for (_, line) in line::parse_all(text, path, line::known)? {
            match line {
                Known::Host(host, fingerprint) => known.add(host, fingerprint),
                Known::Marked(marked) => known.marks.add(marked),
            }
        }
        Ok(known)
    }

    /// Adds one key of `host`; in memory only.
    pub fn add(&mut self, host: &str, fingerprint: Fingerprint) {
        self.keys.entry(normal(host)).or_default().push(fingerprint);
    }

    /// The keys of `host`; empty where it is unknown. Names compare as DNS does, without case.
    pub fn of(&self, host: &str) -> &[Fingerprint] {
        self.keys.get(&normal(host)).map_or(&[], Vec::as_slice)
    }

    /// Whether what a destination has shown makes it `host` at this moment.
    pub fn recognise(&self, host: &str, shown: &Credentials) -> Result<(), Refused> {
        let key = shown.fingerprint();
        if self.marks.revokes(&key) {
            return Err(Refused::RevokedKey(key));
        }
        if self.of(host).contains(&key) {
            return Ok(());
        }
        match self.marks.certified(shown, Role::Destination) {
            Some(certified) => {
                let Certified { authority, .. } = certified?;
                if !self.marks.trusts(&authority, host) {
                    return Err(Refused::UnknownAuthority(authority));
                }
                shown.is_for(host)
            }
            None => Err(shown.authority().map_or(Refused::NotListed, Refused::UnknownAuthority)),
        }
    }
}

/// What the marked lines of a file say, with `revoked_hosts`.
#[derive(Debug, Clone, Default)]
struct Marks {
    authorities: Vec<(Fingerprint, Patterns)>,
    revoked: HashSet<Fingerprint>,
    revoked_hosts: RevokedHosts,
}

impl Marks {
    fn add(&mut self, marked: Marked) {
        match marked {
            Marked::Authority(authority, patterns) => self.authorities.push((authority, patterns)),
            Marked::Revoked(key) => {
                self.revoked.insert(key);
            }
        }
    }

    fn revokes(&self, key: &Fingerprint) -> bool {
        self.revoked.contains(key) || self.revoked_hosts.has_key(key)
    }

    fn trusts(&self, authority: &Fingerprint, name: &str) -> bool {
        self.authorities.iter().any(|(key, patterns)| key == authority && patterns.matches(name))
    }

    /// What a CA of ours says of the key that was shown; `None` where no CA of ours says anything.
    fn certified(&self, shown: &Credentials, role: Role) -> Option<Result<Certified, Refused>> {
        let authority = shown.authority()?;
        if !self.authorities.iter().any(|(key, _)| *key == authority) {
            return None;
        }
        if self.revokes(&authority) {
            return Some(Err(Refused::RevokedAuthority(authority)));
        }
        let certified = shown.certified(role, UnixTime::now()).and_then(|certified| {
            match self.revoked_hosts.has_serial(&authority, certified.serial) {
                true => Err(Refused::RevokedSerial { serial: certified.serial, authority }),
                false => Ok(certified),
            }
        });
        Some(certified)
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
    fn a_revoked_key_is_out_although_it_is_listed() {
        let text = format!("{A} hosta\n@revoked {A} hosta\n{B}\n");
        let hosts = AuthorizedHosts::parse(&text, Path::new("f")).unwrap();
        assert!(!hosts.contains(&key(A)) && hosts.contains(&key(B)));
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
        for line in [
            format!("@trusted {A}"),
            format!("@ {A}"),
            "@cert-authority".to_owned(),
            format!("@cert-authority * {A}"),
            format!("@cert-authority {A} a b"),
            format!("@cert-authority {A} a,,b"),
            format!("@cert-authority {A} !a"),
            "@revoked hosta".to_owned(),
            format!("@revoked {A} hosta hostb"),
        ] {
            assert!(KnownHosts::parse(&line, Path::new("f")).is_err(), "{line}");
            assert!(AuthorizedHosts::parse(&line, Path::new("f")).is_err(), "{line}");
        }
    }

    /// Whatever stands in a line, the file is read as a whole or not at all, and what is read is
    /// what the words say: every line made of these pieces.
    #[test]
    fn no_line_of_known_pieces_is_read_as_anything_but_what_it_says() {
        let pieces = ["", "#", "@cert-authority", "@revoked", "hosta", "*", A, "serial", "7"];
        let words =
            |n: usize| (0..3).map(move |at| pieces[n / pieces.len().pow(at) % pieces.len()]);
        for n in 0..pieces.len().pow(3) {
            let words: Vec<&str> = words(n).collect();
            let line = words.join(" ");
            let meant: Vec<&str> = words.iter().copied().take_while(|word| *word != "#").collect();
            let meant: Vec<&str> = meant.into_iter().filter(|word| !word.is_empty()).collect();
            let path = Path::new("f");
            let is_known = KnownHosts::parse(&line, path).is_ok();
            let is_authorised = AuthorizedHosts::parse(&line, path).is_ok();
            let is_marked = match meant.as_slice() {
                ["@revoked", A] | ["@revoked", A, _] | ["@cert-authority", A] => true,
                ["@cert-authority", A, name] => !name.starts_with('@') && *name != A,
                _ => false,
            };
            let is_host =
                matches!(meant.as_slice(), [host, A] if !host.starts_with('@') || *host == A);
            assert_eq!(is_known, meant.is_empty() || is_marked || is_host, "{line}");
            let is_key = matches!(meant.as_slice(), [A] | [A, _]);
            assert_eq!(is_authorised, meant.is_empty() || is_marked || is_key, "{line}");
        }
    }
}
