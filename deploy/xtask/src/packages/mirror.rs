//! Where this machine has Debian's packages from, of either format of sources.list(5).

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq)]
pub(super) struct Mirror {
    uri: String,
    keys: Option<String>,
}

impl Mirror {
    /// Of a machine that is set up for one of these releases.
    pub(super) fn of(releases: &[&str]) -> Result<Self> {
        let files = sources().into_iter().filter(|file| has_name_of_sources(file));
        let mut texts = files.filter_map(|file| fs::read_to_string(file).ok());
        texts.find_map(|text| mirror_in(&text, releases)).with_context(|| {
            format!(
                "no mirror of Debian {} among this machine's apt sources",
                releases.join(" or ")
            )
        })
    }

    /// One line of sources.list(5).
    pub(super) fn line(&self, suite: &str) -> String {
        let Self { uri, keys } = self;
        let keys = keys.as_ref().map_or(String::new(), |keys| format!("[signed-by={keys}] "));
        format!("deb {keys}{uri} {suite} main\n")
    }
}

fn sources() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files
}

fn has_name_of_sources(file: &Path) -> bool {
    file.extension().is_some_and(|is| is == "list" || is == "sources")
}

/// The first that has the `main` part of a release of Debian itself, and not of its updates.
fn mirror_in(text: &str, releases: &[&str]) -> Option<Mirror> {
    let stanzas = || text.split("\n\n").find_map(|stanza| stanza_mirror(stanza, releases));
    one_line_mirror(text, releases).or_else(stanzas)
}

/// `deb [signed-by=KEYS] URI SUITE main`
fn one_line_mirror(text: &str, releases: &[&str]) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let keys = options.split_whitespace().find_map(|one| one.strip_prefix("signed-by="));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [uri, suite, parts @ ..] = words.as_slice() else { return None };
        let fits = releases.contains(suite) && parts.contains(&"main");
        fits.then(|| Mirror { uri: (*uri).into(), keys: keys.map(str::to_owned) })
    })
}

/// A paragraph of the format of RFC 822.
fn stanza_mirror(stanza: &str, releases: &[&str]) -> Option<Mirror> {
    let field = |name: &str| {
        let own = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        stanza.lines().find_map(own)
    };
    let has = |name: &str, is: &dyn Fn(&str) -> bool| {
        field(name).is_some_and(|value| value.split_whitespace().any(is))
    };
    let is_off = has("Enabled", &|word| word == "no");
    let fits =
        has("Types", &|word| word == "deb") && has("Suites", &|suite| releases.contains(&suite));
    if is_off || !fits || !has("Components", &|word| word == "main") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?.to_owned();
    Some(Mirror { uri, keys: field("Signed-By").filter(|keys| keys.starts_with('/')) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASES: &[&str] = &["bookworm", "stable"];

    fn mirror(keys: Option<&str>) -> Option<Mirror> {
        Some(Mirror { uri: "http://mirror.example/debian".into(), keys: keys.map(str::to_owned) })
    }

    #[test]
    fn a_mirror_is_found_in_one_line() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb http://mirror.example/security bookworm-security main\n\
                    deb http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(mirror_in(text, RELEASES), mirror(None));
        let signed = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian stable main";
        assert_eq!(mirror_in(signed, RELEASES), mirror(Some("/k.gpg")));
    }

    #[test]
    fn a_mirror_is_found_in_a_paragraph() {
        let text = "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
                    Components: main\n\nTypes: deb\n# a comment\nURIs: http://mirror.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(mirror_in(text, RELEASES), mirror(Some("/k.gpg")));
    }

    #[test]
    fn what_is_switched_off_or_of_somebody_else_is_no_mirror() {
        let text = "Types: deb\nURIs: http://other.example/x\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n\
                    Components: main\n";
        assert_eq!(mirror_in(text, RELEASES), None);
    }

    #[test]
    fn a_machine_of_another_release_has_no_mirror_of_this_one() {
        let text = "deb http://mirror.example/debian trixie main\n";
        assert_eq!(mirror_in(text, RELEASES), None);
        assert_eq!(mirror_in(text, &["trixie"]), mirror(None));
        let line = "deb [signed-by=/k.gpg] http://mirror.example/debian forky main\n";
        assert_eq!(mirror(Some("/k.gpg")).unwrap().line("forky"), line);
    }
}
