//! Hosts with another kernel than this machine: guests of QEMU, without KVM.
//!
//! A guest's root is this machine's, read-only under a tmpfs of its own, so everything that was built
//! here runs there as it is; the directory of a pair is the same in both. [`boot`] is what runs in a
//! guest before anything else, [`machine`] how QEMU is called, and [`archive`] what the kernel begins
//! with. `cargo xtask test --vm` gets the kernels ready.

pub mod archive;
pub mod boot;
pub mod machine;

use crate::place;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// A kernel that was made ready below `target/guests`.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub series: &'static str,
    pub release: String,
    directory: PathBuf,
}

const QEMU: &str = "qemu-system-x86_64";

impl Kernel {
    /// `None` when guests were not made ready here.
    pub fn find(series: &'static str) -> Result<Option<Self>> {
        let directory = place::made("guests")?.join(series);
        let marker = directory.join("ready");
        if !marker.exists() || !place::is_installed(QEMU) {
            return Ok(None);
        }
        let release = fs::read_to_string(&marker).context("read which kernel is ready")?;
        Ok(Some(Self { series, release, directory }))
    }

    fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What is to be loaded before the root can be mounted, in order.
    fn first_modules(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.directory.join("first")).context("list the modules")?;
        let mut paths =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        Ok(paths)
    }

    /// All others, as modprobe(8) finds them in a guest.
    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }
}
