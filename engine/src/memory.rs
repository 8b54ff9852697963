//! The memory of a process: what it looks like, how it is read, and how it is filled again.

pub mod fill;
pub mod holder;
pub mod lazy;
pub mod page_set;

#[cfg(test)]
mod test_program;
