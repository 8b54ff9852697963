//! What is specific to a processor architecture. One folder each; today x86-64.

pub(crate) mod x86_64;
