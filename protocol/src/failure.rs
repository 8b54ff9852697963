//! What went wrong, told to the other host.
//!
//! A failure crosses the wire as structure and not as a sentence, so that either operator sees the
//! root of it: which side, in which phase, doing what to which object, and every cause below.

use crate::limits::{CAUSES_MAX, TEXT_BYTES_MAX};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Side {
    Unknown = 0,
    Source = 1,
    Destination = 2,
}

/// The phases of a migration, as both operators are shown them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Phase {
    Unknown = 0,
    Hello = 1,
    Offer = 2,
    Stage = 3,
    Rounds = 4,
    Freeze = 5,
    Final = 6,
    Ready = 7,
    Handover = 8,
    Lazy = 9,
    Done = 10,
}

/// `Display` is one line without the causes; [`Failure::lines`] gives them all.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Failure {
    #[prost(enumeration = "Side", tag = "1")]
    pub side: i32,
    #[prost(enumeration = "Phase", tag = "2")]
    pub phase: i32,
    /// "mapping 0x1000-0x2000 of process 4711".
    #[prost(string, tag = "3")]
    pub object: String,
    /// A verb phrase that goes before the object: "read the pages of".
    #[prost(string, tag = "4")]
    pub action: String,
    /// The system's error number at the root, 0 when the system reported none.
    #[prost(int32, tag = "5")]
    pub errno: i32,
    /// The causes, nearest first.
    #[prost(string, repeated, tag = "6")]
    pub chain: Vec<String>,
}

impl Failure {
    pub fn new(
        side: Side,
        phase: Phase,
        action: impl Into<String>,
        object: impl Into<String>,
    ) -> Self {
        Self {
            side: side.into(),
            phase: phase.into(),
            object: clipped(object.into()),
            action: clipped(action.into()),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn with_errno(self, errno: i32) -> Self {
        Self { errno, ..self }
    }

    /// Adds one cause under those already there; what is too long or too deep is cut.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        if self.chain.len() < CAUSES_MAX {
            self.chain.push(clipped(cause.into()));
        }
        self
    }

    /// A failure of this side with an error and everything below it.
    pub fn of(side: Side, phase: Phase, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(side, phase, error.to_string(), "");
        let mut cause = error.source();
        while let Some(error) = cause {
            failure = failure.because(error.to_string());
            cause = error.source();
        }
        failure
    }

    /// The failure and its causes, one line each, for an operator.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.to_string()).chain(self.chain.iter().cloned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A side or phase that a newer version invented is left out rather than guessed.
        if self.side() != Side::Unknown {
            write!(f, "{}: ", format!("{:?}", self.side()).to_lowercase())?;
        }
        write!(f, "{}", self.action)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if self.phase() != Phase::Unknown {
            write!(f, " ({} phase)", format!("{:?}", self.phase()).to_lowercase())?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The text, cut at a character so that it fits into a message.
pub(crate) fn clipped(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_done_to_which_object_and_why_it_failed() {
        let failure =
            Failure::new(Side::Destination, Phase::Stage, "map the stack of", "process 4711")
                .because("mmap at 0x7ffe0000")
                .because("Cannot allocate memory (os error 12)");
        let lines: Vec<_> = failure.lines().collect();
        assert_eq!(lines[0], "destination: map the stack of process 4711 (stage phase)");
        assert_eq!(lines[1..], ["mmap at 0x7ffe0000", "Cannot allocate memory (os error 12)"]);
    }

    #[test]
    fn an_unknown_side_or_phase_is_left_out() {
        let failure = Failure { action: "fly".into(), phase: 99, ..Failure::default() };
        assert_eq!(failure.to_string(), "fly");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let long = "ä".repeat(TEXT_BYTES_MAX);
        assert_eq!(clipped(long.clone()).len(), TEXT_BYTES_MAX);
        assert_eq!(clipped(format!("a{long}")).len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn the_causes_are_bounded() {
        let many = (0..100).fold(Failure::default(), |failure, n| failure.because(n.to_string()));
        assert_eq!(many.chain.len(), CAUSES_MAX);
    }
}
