//! What the build and the tests need from the system, installed with apt-get when it is missing.

use crate::command::{run, say};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A Debian package, and how to see that what it brings is there (by whatever means it came).
struct Need {
    package: &'static str,
    probe: Probe,
}

enum Probe {
    Program(&'static str),
    File(&'static str),
    /// A shared library somewhere below a directory, by the beginning of its name.
    Library(&'static str, &'static str),
}

/// For building. The `userfaultfd` crate generates its bindings with libclang.
const BUILD: &[Need] = &[
    Need { package: "gcc", probe: Probe::Program("cc") },
    Need { package: "libc6-dev", probe: Probe::File("/usr/include/stdio.h") },
    Need { package: "make", probe: Probe::Program("make") },
    Need { package: "cmake", probe: Probe::Program("cmake") },
    Need { package: "pkg-config", probe: Probe::Program("pkg-config") },
    Need { package: "clang", probe: Probe::Program("clang") },
    Need { package: "libclang-dev", probe: Probe::Library("/usr/lib", "libclang") },
];

/// For the two hosts and the programs that move between them.
const SCENARIOS: &[Need] = &[
    Need { package: "iproute2", probe: Probe::Program("ip") },
    Need { package: "util-linux", probe: Probe::Program("nsenter") },
    Need { package: "ethtool", probe: Probe::Program("ethtool") },
    Need { package: "hostname", probe: Probe::Program("hostname") },
    Need { package: "redis-server", probe: Probe::Program("redis-server") },
    Need { package: "redis-tools", probe: Probe::Program("redis-cli") },
    Need { package: "python3", probe: Probe::File("/usr/bin/python3") },
    Need { package: "openjdk-17-jdk-headless", probe: Probe::Program("javac") },
    Need { package: "golang-go", probe: Probe::Program("go") },
    Need { package: "nodejs", probe: Probe::Program("node") },
    Need { package: "nginx-light", probe: Probe::Program("nginx") },
    Need { package: "wrk", probe: Probe::Program("wrk") },
];

pub(crate) fn for_building() -> Result<()> {
    install(BUILD.iter())
}

pub(crate) fn for_scenarios() -> Result<()> {
    install(BUILD.iter().chain(SCENARIOS))
}

/// Whether there is what guests are prepared and booted with.
pub(crate) fn can_boot() -> bool {
    ["qemu-system-x86_64", "modprobe", "depmod", "xz"].iter().all(|name| is_in_path(name))
}

fn install(needs: impl Iterator<Item = &'static Need>) -> Result<()> {
    let missing: Vec<&str> =
        needs.filter(|need| !need.probe.finds()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("missing on this machine: {}", missing.join(" ")))?;
    if !Probe::Program("apt-get").finds() {
        bail!("this machine has no apt-get; install what these Debian packages bring: {missing:?}");
    }
    apt_get(&["update"])?;
    apt_get(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

impl Probe {
    fn finds(&self) -> bool {
        match self {
            Self::Program(name) => is_in_path(name),
            Self::File(path) => Path::new(path).exists(),
            Self::Library(directory, name) => holds_library(Path::new(directory), name, 3),
        }
    }
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// Looks `depth` directories deep: `/usr/lib/llvm-14/lib/libclang.so`.
fn holds_library(directory: &Path, name: &str, depth: u32) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        let is_library = found.starts_with(&format!("{name}.so"))
            || found.starts_with(&format!("{name}-")) && found.contains(".so");
        let is_worth_a_look =
            found.starts_with("llvm") || found == "lib" || found.contains("linux-gnu");
        is_library
            || (depth > 1 && is_worth_a_look && holds_library(&entry.path(), name, depth - 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_the_path() {
        assert!(Probe::Program("sh").finds());
        assert!(!Probe::Program("no-such-program").finds());
    }

    #[test]
    fn a_library_is_found_where_debian_puts_it() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("llvm-14/lib");
        std::fs::create_dir_all(&deep).unwrap();
        assert!(!holds_library(top.path(), "libclang", 3));
        std::fs::write(deep.join("libclang-cpp.txt"), "").unwrap();
        assert!(!holds_library(top.path(), "libclang", 3));
        std::fs::write(deep.join("libclang-14.so.1"), "").unwrap();
        assert!(holds_library(top.path(), "libclang", 3));
    }
}
