//! Workloads in Go.

use crate::place;
use crate::workload::SOURCES;
use anyhow::{Result, ensure};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// Builds `tests/workloads/NAME.go`. `None` without a Go compiler.
pub fn program(name: &str) -> Result<Option<String>> {
    let built = place::made("workloads")?.join(name);
    let source = Path::new(SOURCES).join(name).with_extension("go");
    let go = Command::new("go").arg("build").arg("-o").args([&built, &source]).status();
    match go {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        status => {
            ensure!(status?.success(), "go build failed");
            Ok(Some(place::text(&built)?))
        }
    }
}
