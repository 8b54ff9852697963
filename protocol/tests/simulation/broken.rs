//! An invariant that did not hold.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

pub(crate) fn broken<T>(what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken(what.into()))
}

/// `Err` with the sentence, unless it holds.
pub(crate) fn holds(is_true: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_true { Ok(()) } else { Err(Broken(what())) }
}
