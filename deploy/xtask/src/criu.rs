//! CRIU from a newer Debian, unpacked into a folder with its own loader and libraries, and installed nowhere.
//!
//! That of Debian 12 (3.17.1) does not run on newer kernels, and that of Debian 13 (4.1.1) cannot dump TCP
//! sockets there. apt resolves the newer one against an empty list of what is installed, from the mirror
//! that this machine uses.

use crate::command;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SUITE: &str = "forky";

/// Hosts of the benchmark see this folder.
const TOP: &str = "target/others/criu";

/// The folder in which it is unpacked; does that when it was not done before.
pub(crate) fn unpacked() -> Result<PathBuf> {
    let top = std::env::current_dir()?.join(TOP);
    let root = top.join(SUITE);
    if root.join("usr/sbin/criu").exists() {
        return Ok(root);
    }
    ensure!(cfg!(target_arch = "x86_64"), "it is only looked for on x86-64");
    let apt = Apt::beneath(&top.join("apt"))?;
    apt.run(&["update"])?;
    apt.run(&["install", "--download-only", "--yes", "--no-install-recommends", "criu"])?;
    // Complete or not at all.
    let fresh = top.join("new");
    unpack(&apt.archives(), &fresh)?;
    fs::rename(&fresh, &root).context("put it in place")?;
    fs::remove_dir_all(top.join("apt")).context("clear up after apt")?;
    Ok(root)
}

/// An apt with lists, archives and a status of its own.
struct Apt {
    top: PathBuf,
}

impl Apt {
    fn beneath(top: &Path) -> Result<Self> {
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(top.join(folder))?;
        }
        fs::write(top.join("status"), "")?;
        fs::write(top.join("sources.list"), source_line()?)?;
        Ok(Self { top: top.to_path_buf() })
    }

    fn archives(&self) -> PathBuf {
        self.top.join("cache/archives")
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let places = [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
        ];
        let mut apt = Command::new("apt-get");
        for (name, place) in places {
            apt.arg("-o").arg(format!("{name}={}", self.top.join(place).display()));
        }
        // Without these the machine's own sources and preferences would count as well; and where apt is to
        // drop its rights it could not write here.
        for option in [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferencesparts=/dev/null",
            "APT::Sandbox::User=root",
        ] {
            apt.args(["-o", option]);
        }
        command::run(apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    }
}

fn unpack(archives: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(archives)? {
        let package = entry?.path();
        if package.extension().is_some_and(|is| is == "deb") {
            command::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(into))?;
        }
    }
    ensure!(into.join("usr/sbin/criu").exists(), "its package has no usr/sbin/criu");
    Ok(())
}

/// One line of sources.list(5).
fn source_line() -> Result<String> {
    let places = ["/etc/apt/sources.list", "/etc/apt/sources.list.d"].map(Path::new);
    let mut files = vec![places[0].to_path_buf()];
    if let Ok(entries) = fs::read_dir(places[1]) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let texts = files.iter().filter(|file| has_name_of_sources(file));
    let mut texts = texts.filter_map(|file| fs::read_to_string(file).ok());
    let mirror = texts.find_map(|text| mirror_in(&text));
    let Mirror { uri, keys } =
        mirror.context("no mirror of Debian among this machine's apt sources")?;
    let keys = keys.map_or(String::new(), |keys| format!("[signed-by={keys}] "));
    Ok(format!("deb {keys}{uri} {SUITE} main\n"))
}

fn has_name_of_sources(file: &Path) -> bool {
    file.extension().is_some_and(|is| is == "list" || is == "sources")
}

#[derive(Debug, PartialEq)]
struct Mirror {
    uri: String,
    keys: Option<String>,
}

/// The first that has the `main` part of a release of Debian itself, and not of its updates.
fn mirror_in(text: &str) -> Option<Mirror> {
    one_line_mirror(text).or_else(|| text.split("\n\n").find_map(stanza_mirror))
}

/// `deb [signed-by=KEYS] URI SUITE main`
fn one_line_mirror(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let keys = options.split_whitespace().find_map(|one| one.strip_prefix("signed-by="));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [uri, suite, parts @ ..] = words.as_slice() else { return None };
        let fits = is_release(suite) && parts.contains(&"main");
        fits.then(|| Mirror { uri: (*uri).into(), keys: keys.map(str::to_owned) })
    })
}

/// A paragraph of the format of RFC 822.
fn stanza_mirror(stanza: &str) -> Option<Mirror> {
    let field = |name: &str| {
        let own = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        stanza.lines().find_map(own)
    };
    let has = |name: &str, is: &dyn Fn(&str) -> bool| {
        field(name).is_some_and(|value| value.split_whitespace().any(is))
    };
    let is_off = has("Enabled", &|word| word == "no");
    let fits = has("Types", &|word| word == "deb") && has("Suites", &is_release);
    if is_off || !fits || !has("Components", &|word| word == "main") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?.to_owned();
    Some(Mirror { uri, keys: field("Signed-By").filter(|keys| keys.starts_with('/')) })
}

fn is_release(suite: &str) -> bool {
    ["bookworm", "trixie", SUITE, "oldstable", "stable"].contains(&suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(keys: Option<&str>) -> Option<Mirror> {
        Some(Mirror { uri: "http://mirror.example/debian".into(), keys: keys.map(str::to_owned) })
    }

    #[test]
    fn a_mirror_is_found_in_one_line() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb http://mirror.example/security bookworm-security main\n\
                    deb http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(mirror_in(text), mirror(None));
        let signed = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian stable main";
        assert_eq!(mirror_in(signed), mirror(Some("/k.gpg")));
    }

    #[test]
    fn a_mirror_is_found_in_a_paragraph() {
        let text = "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n\
                    Components: main\n\nTypes: deb\n# a comment\nURIs: http://mirror.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(mirror_in(text), mirror(Some("/k.gpg")));
    }

    #[test]
    fn what_is_switched_off_or_of_somebody_else_is_no_mirror() {
        let text = "Types: deb\nURIs: http://other.example/x\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n\
                    Components: main\n";
        assert_eq!(mirror_in(text), None);
    }
}
