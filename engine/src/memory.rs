//! The memory of a process: what it looks like, how it is read, and how it is filled again.

pub mod page_set;
