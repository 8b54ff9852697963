//! x
mod processes;
