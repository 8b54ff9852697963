//! What a command says that does not do what it was asked to: one sentence on standard error, and
//! the exit code that goes with it.

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::process::ExitCode;

/// Why, as a sentence that follows `migrate: `.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Complaint {
    /// What was asked for makes no sense: an id that names no migration.
    Usage(String),
    /// There is a reason not to. Nothing was changed.
    Refused(String),
    /// It was tried, or could not even be.
    Failed(String),
}

impl Complaint {
    pub(crate) fn usage(why: impl Display) -> Self {
        Self::Usage(why.to_string())
    }

    pub(crate) fn refused(why: impl Display) -> Self {
        Self::Refused(why.to_string())
    }

    pub(crate) fn failed(why: impl Display) -> Self {
        Self::Failed(why.to_string())
    }

    /// As README.md and `--help` have it.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Failed(_) => 4,
        }
    }

    /// To whoever typed the command; tells how the command ends.
    pub(crate) fn say(&self) -> ExitCode {
        eprintln!("{}", self.line());
        self.code().into()
    }

    fn line(&self) -> String {
        let (Self::Usage(why) | Self::Refused(why) | Self::Failed(why)) = self;
        format!("migrate: {why}")
    }
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Asked before anything else: what only root may do would fail later, and say less.
pub(crate) fn only_root(what: &str) -> Result<(), Complaint> {
    if is_root() {
        return Ok(());
    }
    Err(Complaint::refused(format!("only root may {what}; nothing was changed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_sentence_with_the_name_of_the_command() {
        let complaint = Complaint::refused("only root may do that");
        assert_eq!(complaint.line(), "migrate: only root may do that");
    }

    #[test]
    fn usage_refusal_and_failure_have_the_codes_of_the_help() {
        let help = include_str!("cli.rs");
        let all = [Complaint::usage(""), Complaint::refused(""), Complaint::failed("")];
        for (complaint, words) in all.iter().zip(["wrong usage", "refused", "failed"]) {
            assert!(help.contains(&format!("{} {words}", complaint.code())), "{complaint:?}");
        }
    }
}
