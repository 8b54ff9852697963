//! Where the operator reads: events on standard output, or text and a bar.

use crate::events::Event;
use crate::progress::Bar;
use std::io::{self, IsTerminal as _, Write as _};

#[derive(Debug)]
pub(crate) enum Output {
    Json,
    Text { bar: Option<Bar> },
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        Self::Text { bar: io::stderr().is_terminal().then(Bar::new) }
    }

    /// Flushed line by line: whoever reads it may wait for just this one. A reader that has gone
    /// must not end a migration.
    pub(crate) fn event(&self, event: &Event) {
        let Self::Json = self else { return };
        match serde_json::to_string(event) {
            Ok(line) => print(&line),
            Err(error) => tracing::error!(%error, "an event cannot be written"),
        }
    }

    /// A line for people.
    pub(crate) fn text(&self, text: &str) {
        match self {
            Self::Json => {}
            Self::Text { bar: Some(bar) } => bar.above(|| print(text)),
            Self::Text { bar: None } => print(text),
        }
    }

    pub(crate) fn bar(&self) -> Option<&Bar> {
        match self {
            Self::Text { bar } => bar.as_ref(),
            Self::Json => None,
        }
    }
}

pub(crate) fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _reader_has_gone = writeln!(out, "{line}").and_then(|()| out.flush());
}
