//! Debian's packages beside those that this machine is set up for: lists of our own, from its mirror.

use crate::command::run;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";

pub(crate) struct Packages {
    configuration: PathBuf,
}

impl Packages {
    /// Keeps its lists in `directory`.
    pub(crate) fn of_debian_12(directory: &Path) -> Result<Self> {
        for inner in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(inner)).context("make a directory for apt")?;
        }
        let mirror = mirror()?;
        let sources: String = [RELEASE, "bookworm-updates", BACKPORTS]
            .map(|suite| format!("deb {mirror} {suite} main\n"))
            .concat();
        fs::write(directory.join("sources.list"), sources)?;
        let configuration = directory.join("conf");
        let at = directory.display();
        let text = format!(
            "Dir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"root\";\n"
        );
        fs::write(&configuration, text)?;
        let packages = Self { configuration };
        run(packages.apt("apt-get").args(["-qq", "update"]))?;
        Ok(packages)
    }

    /// Prefers backports.
    pub(crate) fn install(&self, names: &[&str]) -> Result<()> {
        let mut install = self.apt("apt-get");
        install.args(["-qq", "--yes", "--no-install-recommends", "-t", BACKPORTS, "install"]);
        run(install.args(names).env("DEBIAN_FRONTEND", "noninteractive"))
    }

    /// The package of the newest kernel of a series, for any machine.
    pub(crate) fn kernel(&self, series: &str) -> Result<String> {
        let beginning = format!("linux-image-{series}.");
        let mut list = self.apt("apt-cache");
        let output = list.args(["pkgnames", &beginning]).output().context("run apt-cache")?;
        ensure!(output.status.success(), "apt-cache pkgnames: {}", output.status);
        let said = String::from_utf8(output.stdout)?;
        newest(said.lines()).map(str::to_owned).with_context(|| format!("no package {beginning}*"))
    }

    pub(crate) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        run(self.apt("apt-get").args(["-qq", "download", package]).current_dir(into))?;
        let is_it = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        let mut files = fs::read_dir(into)?.flatten().map(|entry| entry.path());
        files.find(is_it).with_context(|| format!("nothing came for {package}"))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).stderr(Stdio::inherit());
        command
    }
}

/// Not those for clouds, without signature, with symbols, or for real time.
fn newest<'a>(packages: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_plain = |name: &&str| {
        let Some(name) = name.strip_suffix("-amd64") else { return false };
        !["cloud", "-rt", "unsigned", "dbg"].iter().any(|other| name.contains(other))
    };
    packages.filter(is_plain).max_by_key(|name| numbers(name))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Where this machine has Debian's packages from.
fn mirror() -> Result<String> {
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let texts = sources.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.filter_map(|text| mirror_in(&text)).next().with_context(|| {
        format!("no mirror of Debian 12 ({RELEASE}) in {}", sources.join(" or in "))
    })
}

/// Of either format of sources.list(5).
fn mirror_in(text: &str) -> Option<String> {
    let mut uri = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["URIs:", first, ..] => uri = Some(first),
            ["Suites:", ref suites @ ..] if suites.contains(&RELEASE) => {
                return uri.map(str::to_owned);
            }
            ["deb", uri, RELEASE, ..] | ["deb", _, uri, RELEASE, ..] => {
                return Some(uri.to_owned());
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_the_release_itself_is_found() {
        let text = "Types: deb\nURIs: http://mirror/security\nSuites: bookworm-security\n\n\
                    Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n";
        assert_eq!(mirror_in(text).as_deref(), Some("http://mirror/debian"));
        let text = "# a comment\ndeb http://other/security bookworm-security main\n\
                    deb [signed-by=/k] http://other/debian bookworm main contrib\n";
        assert_eq!(mirror_in(text).as_deref(), Some("http://other/debian"));
        assert_eq!(mirror_in("deb http://other/debian trixie main\n"), None);
    }

    #[test]
    fn the_newest_kernel_for_any_machine_is_chosen() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-41-amd64",
            "linux-image-6.1.0-42-cloud-amd64",
            "linux-image-6.1.0-42-amd64-unsigned",
            "linux-image-6.1.0-42-rt-amd64",
            "linux-image-6.1.0-42-amd64-dbg",
        ];
        assert_eq!(newest(names.into_iter()), Some("linux-image-6.1.0-41-amd64"));
    }
}
