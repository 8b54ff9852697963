//! `revoked_hosts`: keys and certificates that nobody is to be let in with, whatever else says so.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;

use super::line::{self, Revoked};
use super::{REVOKED_HOSTS, TrustFileError, read_or_empty};
use crate::Fingerprint;

/// The keys that are revoked: `FINGERPRINT [NAME]` a line, or `FINGERPRINT serial FIRST[-LAST]` for
/// certificates of a CA.
#[derive(Debug, Clone, Default)]
pub struct RevokedHosts {
    keys: HashSet<Fingerprint>,
    serials: HashMap<Fingerprint, Vec<RangeInclusive<u64>>>,
}

impl RevokedHosts {
    /// Reads `revoked_hosts` in `directory`; a file that is not there revokes nothing.
    pub fn load(directory: &Path) -> Result<Self, TrustFileError> {
        let path = directory.join(REVOKED_HOSTS);
        Self::parse(&read_or_empty(&path)?, &path)
    }

    /// Reads `text`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TrustFileError> {
        let mut revoked = Self::default();
        for (_, line) in line::parse_all(text, path, line::revoked)? {
            match line {
                Revoked::Key(key) => revoked.add(key),
                Revoked::Serials(authority, serials) => {
                    revoked.serials.entry(authority).or_default().push(serials);
                }
            }
        }
        Ok(revoked)
    }

    pub(super) fn add(&mut self, key: Fingerprint) {
        self.keys.insert(key);
    }

    /// Whether this key, of a host or of a CA, is revoked.
    pub fn has_key(&self, key: &Fingerprint) -> bool {
        self.keys.contains(key)
    }

    /// Whether the CA's certificate of this number is revoked.
    pub fn has_serial(&self, authority: &Fingerprint, serial: u64) -> bool {
        let ranges = self.serials.get(authority).map_or(&[][..], Vec::as_slice);
        ranges.iter().any(|range| range.contains(&serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
    const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn keys_and_serials_are_revoked_and_nothing_else() {
        let text = format!("# stolen\n{A} hosta\n{B} serial 7 # lost\n{B} serial 10-12\n");
        let revoked = RevokedHosts::parse(&text, Path::new("f")).unwrap();
        let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
        assert!(revoked.has_key(&a) && !revoked.has_key(&b));
        let of_b: Vec<u64> = (0..20).filter(|&serial| revoked.has_serial(&b, serial)).collect();
        assert_eq!(of_b, [7, 10, 11, 12]);
        assert!(!revoked.has_serial(&a, 7));
    }

    #[test]
    fn every_bad_line_fails_the_whole_file() {
        for line in [
            "hosta".to_owned(),
            format!("{A} serial"),
            format!("{A} serial x"),
            format!("{A} serial +7"),
            format!("{A} serial 9-7"),
            format!("{A} serial 7-"),
            format!("{A} serial 7 8"),
            format!("{A} hosta 7"),
            format!("{A} serial 18446744073709551616"),
            format!("@revoked {A}"),
        ] {
            let error =
                RevokedHosts::parse(&format!("\n{line}"), Path::new("/r")).expect_err(&line);
            assert!(error.to_string().starts_with("/r, line 2: "), "{error}");
        }
    }
}
