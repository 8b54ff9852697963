//! Where the build put things: everything a test runs stands beside the test in one directory.

use crate::host_init;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The directory of this build's programs, such as `target/debug`.
pub fn programs() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("find this test's own executable")?;
    let directory = executable.parent().context("an executable stands in a directory")?;
    // Cargo puts tests one level deeper than programs.
    let is_deps = directory.file_name().is_some_and(|name| name == "deps");
    Ok(if is_deps { directory.join("..").canonicalize()? } else { directory.to_path_buf() })
}

/// One program of this build, as an absolute path.
pub fn program(name: &str) -> Result<String> {
    let path = programs()?.join(name);
    if !path.exists() {
        bail!("{} is not built yet: run `cargo build --workspace --bins`", path.display());
    }
    text(&path)
}

/// Whether a program of the system is there for the hosts. A test that needs one says that it is skipped.
pub fn is_installed(name: &str) -> bool {
    host_init::PATH.split(':').any(|directory| Path::new(directory).join(name).is_file())
}

/// A directory for what tests make, such as `target/workloads`.
pub fn made(name: &str) -> Result<PathBuf> {
    let directory = programs()?.join("..").canonicalize()?.join(name);
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(directory)
}

/// Paths travel to the hosts as JSON, and in command lines; ours are plain text.
pub fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
