//! What a CA has signed: one line a certificate, beside its key. It says which numbers are taken,
//! and which number to revoke.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::fcntl::Flock;

use super::{IssueError, Terms};
use crate::certificate::utc;
use crate::trust_file::{self, LineProblem, TrustFileError, WRITABLE_BY_OTHERS};
use crate::{Fingerprint, atomic};

/// Half a million certificates.
const BYTES_MAX: u64 = 64 << 20;

/// A number that is asked for leaves as many behind it as before it: the next ones follow it.
pub(super) const SERIAL_MAX: u64 = i64::MAX.cast_unsigned();

/// Locked, from looking for a number until it is written down.
pub(super) struct Issued {
    path: PathBuf,
    serials: BTreeSet<u64>,
    /// Its last line has no end: whoever wrote it was cut off.
    is_torn: bool,
    _lock: Flock<File>,
}

impl Issued {
    /// Beside the key of the CA at `authority`.
    pub(super) fn open(authority: &Path) -> Result<Self, TrustFileError> {
        let directory = authority.parent().unwrap_or(Path::new("."));
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let lock = atomic::lock(directory)?;
        let mut path = authority.as_os_str().to_owned();
        path.push(".issued");
        let path = PathBuf::from(path);
        let text = match trust_file::read_long(&path, WRITABLE_BY_OTHERS, BYTES_MAX) {
            Err(error) if error.is_absent() => String::new(),
            read => read?,
        };
        let serials = serials(&text, &path)?;
        let is_torn = !text.is_empty() && !text.ends_with('\n');
        Ok(Self { path, serials, is_torn, _lock: lock })
    }

    /// The number that was asked for if it is free, else the one after the highest.
    pub(super) fn number(&self, wanted: Option<u64>) -> Result<u64, IssueError> {
        match wanted {
            Some(wanted) if self.serials.contains(&wanted) => Err(IssueError::SerialTaken(wanted)),
            Some(wanted) if wanted > SERIAL_MAX => Err(IssueError::SerialTooHigh(wanted)),
            Some(wanted) => Ok(wanted),
            None => self.next().ok_or(IssueError::NoSerial),
        }
    }

    /// The one after the highest. What lies above [`SERIAL_MAX`] was given before there was such a
    /// bound, and is stepped over: the very last number would otherwise be the last certificate.
    fn next(&self) -> Option<u64> {
        let highest = self.serials.range(..=SERIAL_MAX).next_back().copied().unwrap_or(0);
        (highest + 1..=u64::MAX).find(|number| !self.serials.contains(number))
    }

    pub(super) fn write_down(
        &mut self,
        serial: u64,
        key: Fingerprint,
        terms: &Terms,
    ) -> Result<(), TrustFileError> {
        let until = terms.until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let names = terms.names.join(",");
        let end = if self.is_torn { "\n" } else { "" };
        let line = format!("{end}{serial} {key} {names} # until {}\n", utc(until));
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(atomic::PRIVATE).open(&self.path);
        let mut file = opened.map_err(TrustFileError::io("open", &self.path))?;
        // One write: a line is there or it is not, unless the host dies or its disk is full.
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(TrustFileError::io("write", &self.path))
    }
}

/// The numbers of all lines, also of those that were cut off: they may have been given away.
fn serials(text: &str, path: &Path) -> Result<BTreeSet<u64>, TrustFileError> {
    let mut serials = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let first = line.split_whitespace().next().unwrap_or_default();
        match first.parse() {
            Ok(serial) => drop(serials.insert(serial)),
            // Cut off before its number was whole, so nothing was signed: that comes afterwards.
            Err(_) if !is_whole(line) => {}
            Err(_) => {
                let problem = LineProblem::Serial;
                return Err(TrustFileError::Line {
                    path: path.to_owned(),
                    line: index + 1,
                    problem,
                });
            }
        }
    }
    Ok(serials)
}

/// Every line ends with a date, and what is cut off lacks its end.
fn is_whole(line: &str) -> bool {
    line.ends_with(" UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Role;
    use std::fs;

    const KEY: &str = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";

    fn terms() -> Terms {
        let (names, roles) = (vec!["hosta".to_owned()], vec![Role::Source]);
        Terms { names, roles, from: UNIX_EPOCH, until: UNIX_EPOCH, serial: None }
    }

    /// A book with this text, in which one more certificate is written down.
    fn after(text: &str, wanted: Option<u64>) -> Result<(u64, String), IssueError> {
        let home = tempfile::tempdir().unwrap();
        let authority = home.path().join("ca");
        let book = home.path().join("ca.issued");
        fs::write(&book, text).unwrap();
        let mut issued = Issued::open(&authority)?;
        let serial = issued.number(wanted)?;
        issued.write_down(serial, KEY.parse().unwrap(), &terms())?;
        drop(issued);
        Issued::open(&authority)?;
        Ok((serial, fs::read_to_string(&book).unwrap()))
    }

    #[test]
    fn a_line_that_was_cut_off_keeps_its_number_and_nothing_of_the_next() {
        let line = |serial| format!("{serial} {KEY} hosta # until 1970-01-01 00:00 UTC\n");
        let torn = format!("{}2 SHA256:ungW", line(1));
        let (serial, book) = after(&torn, None).unwrap();
        assert_eq!((serial, book), (3, format!("{torn}\n{}", line(3))));
        assert!(matches!(after(&torn, Some(2)), Err(IssueError::SerialTaken(2))));
    }

    #[test]
    fn a_number_that_was_cut_off_is_passed_over() {
        for torn in ["7 a b # until UTC\n\0\0\0", "7 a b # until UTC\n\n", "7 a b # until UTC\n "] {
            assert_eq!(after(torn, None).unwrap().0, 8, "{torn:?}");
        }
        let garbage = after("x SHA256:a hosta # until 1970-01-01 00:00 UTC\n", None).unwrap_err();
        assert!(garbage.to_string().contains("line 1"), "{garbage}");
    }

    #[test]
    fn no_number_that_is_asked_for_is_the_last_one() {
        let too_high = after("", Some(u64::MAX)).unwrap_err();
        assert!(matches!(too_high, IssueError::SerialTooHigh(u64::MAX)), "{too_high}");
        assert_eq!(after("", Some(SERIAL_MAX)).unwrap().0, SERIAL_MAX);
        let last = format!("4 a b # until UTC\n{} a b # until UTC\n", u64::MAX);
        assert_eq!(after(&last, None).unwrap().0, 5);
        let above = format!("{SERIAL_MAX} a # until UTC\n{} a # until UTC\n", SERIAL_MAX + 1);
        assert_eq!(after(&above, None).unwrap().0, SERIAL_MAX + 2);
    }

    #[test]
    fn a_book_of_more_than_a_mebibyte_is_still_read() {
        let book: String = (1..40_000).map(|n| format!("{n} {KEY} hosta # until UTC\n")).collect();
        assert!(book.len() > 1 << 20);
        assert_eq!(after(&book, None).unwrap().0, 40_000);
    }
}
