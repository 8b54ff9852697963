//! What cannot be moved, said before anything is frozen.

use crate::error::Object;
use std::fmt;

/// One blocker: the object, why it cannot be moved, and what the operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub object: Object,
    /// A clause that goes on from the object: "is a kernel thread".
    pub reason: String,
    /// An imperative sentence: "Stop the debugger (process 12) first."
    pub advice: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}", self.object, self.reason, self.advice)
    }
}
