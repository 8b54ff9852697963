//! Trees that are stored in a directory on one host, and brought back from it on either.

use super::{Host, Output, SOURCE_STATE};
use crate::place;
use anyhow::Result;
use std::time::Duration;

/// With gigabytes of memory on a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

impl Host {
    /// `migrate dump`, to its end.
    pub fn dump(&self, pid: i32, directory: &str, options: &[&str]) -> Result<Output> {
        let pid = pid.to_string();
        let argv = ["dump", "--images-dir", directory, "--tree", &pid, "--json"];
        self.image_command(&[&argv, options].concat())
    }

    /// `migrate restore`, until the tree runs.
    pub fn restore(&self, directory: &str, options: &[&str]) -> Result<Output> {
        let argv = ["restore", "--images-dir", directory, "--state", SOURCE_STATE, "--detach"];
        self.image_command(&[&argv, options].concat())
    }

    /// Any command of `migrate` about images, to its end.
    pub fn image_command(&self, arguments: &[&str]) -> Result<Output> {
        let migrate = place::program("migrate")?;
        self.run_within(LIMIT, &[&[migrate.as_str()], arguments].concat(), &[])
    }
}
