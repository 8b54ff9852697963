//! Errors of this host as the other operator is shown them.

use protocol::{Failure, Phase, Side};
use std::error::Error;
use std::io;

/// An engine error with its object and the system's number at its root.
pub fn of_engine(phase: Phase, error: &engine::Error) -> Failure {
    let object = error.object.to_string();
    of_io(phase, error.action, &object, &error.source)
}

pub fn of_io(phase: Phase, action: &str, object: &str, error: &io::Error) -> Failure {
    Failure::new(Side::Destination, phase, action, object)
        .with_errno(error.raw_os_error().unwrap_or(0))
        .because(error.to_string())
}

pub fn of(phase: Phase, error: &dyn Error) -> Failure {
    Failure::of(Side::Destination, phase, error)
}

/// A failure of ours that no call reported.
pub fn because(phase: Phase, action: &str, object: &str, cause: &str) -> Failure {
    Failure::new(Side::Destination, phase, action, object).because(cause)
}

/// An error and everything below it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
