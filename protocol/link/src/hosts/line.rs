//! The lines of a file that says whom we trust.

use std::ops::RangeInclusive;
use std::path::Path;
use std::str::SplitWhitespace;

use super::pattern::Patterns;
use super::{LineProblem, TrustFileError};
use crate::Fingerprint;

/// A line of `known_hosts` or `authorized_hosts` that begins with a marker. It is the same in both.
#[derive(Debug)]
pub(super) enum Marked {
    /// `@cert-authority FINGERPRINT [PATTERNS]`
    Authority(Fingerprint, Patterns),
    /// `@revoked FINGERPRINT [NAME]`
    Revoked(Fingerprint),
}

/// A line of `authorized_hosts`.
#[derive(Debug)]
pub(super) enum Authorised {
    /// `FINGERPRINT [NAME]`
    Host(Fingerprint),
    Marked(Marked),
}

/// A line of `known_hosts`.
#[derive(Debug)]
pub(super) enum Known<'a> {
    /// `HOST FINGERPRINT`
    Host(&'a str, Fingerprint),
    Marked(Marked),
}

/// A line of `revoked_hosts`.
#[derive(Debug)]
pub(super) enum Revoked {
    /// `FINGERPRINT [NAME]`
    Key(Fingerprint),
    /// `FINGERPRINT serial FIRST[-LAST]`, of the certificates of a CA
    Serials(Fingerprint, RangeInclusive<u64>),
}

/// Every line that means something, with its number from 1.
pub(super) fn parse_all<'a, T>(
    text: &'a str,
    path: &Path,
    parse: fn(&'a str) -> Result<T, LineProblem>,
) -> Result<Vec<(usize, T)>, TrustFileError> {
    let mut parsed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (meant, number) = (meaning(line), index + 1);
        if meant.is_empty() {
            continue;
        }
        let at = |problem| TrustFileError::Line { path: path.to_owned(), line: number, problem };
        parsed.push((number, parse(meant).map_err(at)?));
    }
    Ok(parsed)
}

/// Without its comment.
pub(super) fn meaning(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

pub(super) fn authorised(line: &str) -> Result<Authorised, LineProblem> {
    if line.starts_with('@') {
        return marked(line).map(Authorised::Marked);
    }
    let mut words = line.split_whitespace();
    let fingerprint = words.next().unwrap_or_default().parse()?;
    let _name = words.next();
    ends(words).map(|()| Authorised::Host(fingerprint))
}

pub(super) fn known(line: &str) -> Result<Known<'_>, LineProblem> {
    if line.starts_with('@') {
        return marked(line).map(Known::Marked);
    }
    let mut words = line.split_whitespace();
    let host = words.next().unwrap_or_default();
    let fingerprint = words.next().ok_or(LineProblem::HostAlone)?.parse()?;
    ends(words).map(|()| Known::Host(host, fingerprint))
}

pub(super) fn revoked(line: &str) -> Result<Revoked, LineProblem> {
    let mut words = line.split_whitespace();
    let fingerprint = words.next().unwrap_or_default().parse()?;
    let is_of_serials = words.next() == Some("serial");
    let serials = words.next();
    ends(words)?;
    match (is_of_serials, serials) {
        (false, None) => Ok(Revoked::Key(fingerprint)),
        (false, Some(_)) => Err(LineProblem::Trailing),
        (true, serials) => Ok(Revoked::Serials(fingerprint, range(serials.unwrap_or_default())?)),
    }
}

fn marked(line: &str) -> Result<Marked, LineProblem> {
    let mut words = line.split_whitespace();
    let marker = words.next();
    let marked = match marker {
        Some("@cert-authority") => {
            let authority = fingerprint(&mut words)?;
            let patterns = words.next().map_or(Ok(Patterns::any()), str::parse)?;
            Marked::Authority(authority, patterns)
        }
        Some("@revoked") => {
            let revoked = Marked::Revoked(fingerprint(&mut words)?);
            let _name = words.next();
            revoked
        }
        _ => return Err(LineProblem::Marker),
    };
    ends(words).map(|()| marked)
}

fn fingerprint(words: &mut SplitWhitespace<'_>) -> Result<Fingerprint, LineProblem> {
    Ok(words.next().unwrap_or_default().parse()?)
}

fn range(text: &str) -> Result<RangeInclusive<u64>, LineProblem> {
    // `parse` would take "+7".
    let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
        true => text.parse::<u64>().map_err(|_| LineProblem::Serial),
        false => Err(LineProblem::Serial),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = number(first)?..=number(last)?;
    if range.is_empty() { Err(LineProblem::Serial) } else { Ok(range) }
}

fn ends(mut words: SplitWhitespace<'_>) -> Result<(), LineProblem> {
    words.next().map_or(Ok(()), |_| Err(LineProblem::Trailing))
}
