//! CRIU from a newer Debian, unpacked into a folder with its own loader and libraries, and installed nowhere.
//!
//! That of Debian 12 (3.17.1) does not run on newer kernels, and that of Debian 13 (4.1.1) cannot dump TCP
//! sockets there. apt resolves the newer one against an empty list of what is installed, from the mirror
//! that this machine uses.

use crate::command;
use crate::packages::Packages;
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
    let packages = Packages::of_another_release(&top.join("apt"), SUITE)?;
    let archives = packages.download_whole("criu")?;
    // Complete or not at all.
    let fresh = top.join("new");
    unpack(&archives, &fresh)?;
    fs::rename(&fresh, &root).context("put it in place")?;
    fs::remove_dir_all(top.join("apt")).context("clear up after apt")?;
    Ok(root)
}

fn unpack(archives: &[PathBuf], into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::create_dir_all(into)?;
    for package in archives {
        command::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(into))?;
    }
    ensure!(into.join("usr/sbin/criu").exists(), "its package has no usr/sbin/criu");
    Ok(())
}
