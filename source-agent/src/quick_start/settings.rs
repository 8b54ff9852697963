//! What the operator says of a service: `/etc/migrate/services/NAME.conf`, in TOML.

use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// The program, by its absolute path, and its arguments.
    pub(super) command: Vec<String>,
    /// An image that was made when these were others is stale. Of a directory, all that is in it.
    #[serde(default)]
    pub(super) files: Vec<PathBuf>,
    /// How often an image is used.
    #[serde(default)]
    pub(super) image: Use,
    /// Whether it runs before all of its memory is read.
    #[serde(default = "yes")]
    pub(super) lazy: bool,
    /// Options for `migrate dump`. Connections of before are over when it comes back, unless these
    /// say otherwise: their peers have not waited.
    #[serde(default = "closes_connections")]
    pub(super) dump: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Use {
    /// It goes on from where it was stopped, and no start goes back behind another.
    #[default]
    Once,
    /// Every start is from the same image, until that is stale or discarded.
    EveryTime,
}

fn yes() -> bool {
    true
}

fn closes_connections() -> Vec<String> {
    ["--tcp", "close"].map(str::to_owned).to_vec()
}

impl Settings {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let about = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = fs::read_to_string(path).map_err(|error| about(&error))?;
        Self::parse(&text).map_err(|why| about(&why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match settings.command.first() {
            None => Err("`command` is empty".to_owned()),
            Some(program) if !program.starts_with('/') => {
                Err(format!("`command` needs the absolute path of {program}"))
            }
            Some(_) => match settings.files.iter().find(|path| !path.is_absolute()) {
                Some(path) => Err(format!("`files` needs the absolute path of {}", path.display())),
                None => Ok(settings),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_enough() {
        let settings = Settings::parse("command = ['/usr/bin/java', 'Server']").unwrap();
        assert_eq!(settings.image, Use::Once);
        assert!(settings.lazy && settings.files.is_empty());
        assert_eq!(settings.dump, ["--tcp", "close"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused = |text| Settings::parse(text).unwrap_err();
        assert!(refused("command = []").contains("empty"));
        assert!(refused("command = ['java']").contains("absolute path of java"));
        assert!(refused("command = ['/a']\nfiles = ['b']").contains("absolute path of b"));
        assert!(refused("command = ['/a']\nfile = ['/b']").contains("file"));
        assert!(refused("command = ['/a']\nimage = 'twice'").contains("twice"));
    }
}
