//! Debian's packages beside those that this machine is set up for: an apt with lists of its own, from
//! this machine's mirror.

mod mirror;

use crate::command::run;
use anyhow::{Context as _, Result, ensure};
use mirror::Mirror;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";

pub(crate) struct Packages {
    top: PathBuf,
}

impl Packages {
    /// For this machine, which has to be one of Debian 12. Keeps its lists in `top`.
    pub(crate) fn of_debian_12(top: &Path) -> Result<Self> {
        Self::of(top, &Mirror::of(&[RELEASE])?, &[RELEASE, "bookworm-updates", BACKPORTS], "")
    }

    /// Of a release that is not this machine's, as if nothing of it were installed.
    pub(crate) fn of_another_release(top: &Path, release: &str) -> Result<Self> {
        let mirror = Mirror::of(&[RELEASE, "trixie", release, "oldstable", "stable"])?;
        fs::create_dir_all(top).context("make a directory for apt")?;
        let status = top.join("status");
        fs::write(&status, "")?;
        let nothing = format!("Dir::State::status \"{}\";\n", status.display());
        Self::of(top, &mirror, &[release], &nothing)
    }

    fn of(top: &Path, mirror: &Mirror, suites: &[&str], more: &str) -> Result<Self> {
        for inner in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(top.join(inner)).context("make a directory for apt")?;
        }
        let sources: String = suites.iter().map(|suite| mirror.line(suite)).collect();
        fs::write(top.join("sources.list"), sources)?;
        // The machine's own sources and preferences do not count, and where apt is to drop its rights it
        // could not write here.
        let at = top.display();
        let text = format!(
            "Dir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"root\";\n{more}"
        );
        let packages = Self { top: top.to_path_buf() };
        fs::write(packages.configuration(), text)?;
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

    /// Alone.
    pub(crate) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        run(self.apt("apt-get").args(["-qq", "download", package]).current_dir(into))?;
        packages_in(into)?.pop().with_context(|| format!("nothing came for {package}"))
    }

    /// With all that it depends on and is not installed.
    pub(crate) fn download_whole(&self, package: &str) -> Result<Vec<PathBuf>> {
        let mut install = self.apt("apt-get");
        install.args(["-qq", "--yes", "--no-install-recommends", "--download-only", "install"]);
        run(install.arg(package).env("DEBIAN_FRONTEND", "noninteractive"))?;
        packages_in(&self.top.join("cache/archives"))
    }

    fn configuration(&self) -> PathBuf {
        self.top.join("conf")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.configuration()).stderr(Stdio::inherit());
        command
    }
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|is| is == "deb"));
    Ok(files)
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

#[cfg(test)]
mod tests {
    use super::*;

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
