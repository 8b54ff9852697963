//! A program of a test that is to end in good order says so by SIGTERM.

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set when SIGTERM comes. To be called before the program makes its first thread.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.thread_block()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_over);
    std::thread::spawn(move || {
        if end.wait().is_ok() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(is_over)
}
