//! Where the operator reads: events on standard output, or text and a bar; or another process that
//! shows them.

use crate::events::Event;
use crate::frames::Frame;
use crate::listeners::Listeners;
use crate::progress::{Bar, Progress};
use std::io::{self, IsTerminal as _, Write as _};

#[derive(Debug)]
pub(crate) enum Output {
    Json,
    Text {
        bar: Option<Bar>,
    },
    /// Those who listen on the control socket.
    Listeners(Listeners),
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        Self::Text { bar: io::stderr().is_terminal().then(Bar::new) }
    }

    pub(crate) fn event(&self, event: &Event) {
        match serde_json::to_string(event) {
            Ok(event) => self.frame(Frame::Event(event)),
            Err(error) => tracing::error!(%error, "an event cannot be written"),
        }
    }

    /// A line for people.
    pub(crate) fn text(&self, text: &str) {
        self.frame(Frame::Text(text.to_owned()));
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.frame(Frame::Progress(progress));
    }

    /// Flushed line by line: whoever reads it may wait for just this one. A reader that has gone
    /// must not end a migration.
    pub(crate) fn frame(&self, frame: Frame) {
        match (self, frame) {
            (Self::Listeners(listeners), frame) => listeners.say(&frame),
            (Self::Json, Frame::Event(event)) => print(&event),
            (Self::Text { bar: Some(bar) }, Frame::Text(text)) => bar.above(|| print(&text)),
            (Self::Text { bar: None }, Frame::Text(text)) => print(&text),
            (Self::Text { bar: Some(bar) }, Frame::Progress(progress)) => bar.show(&progress),
            (Self::Json | Self::Text { .. }, _) => {}
        }
    }

    /// Nothing more will be said for a while. Who listens on the control socket gets the command
    /// line back.
    pub(crate) fn dismiss(&self, code: u8) {
        if let Self::Listeners(listeners) = self {
            listeners.dismiss(code);
        }
    }

    /// Whether anybody would be dismissed.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Listeners(listeners) if listeners.is_empty())
    }

    /// The bar makes room for the last words.
    pub(crate) fn clear(&self) {
        if let Self::Text { bar: Some(bar) } = self {
            bar.clear();
        }
    }
}

pub(crate) fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _reader_has_gone = writeln!(out, "{line}").and_then(|()| out.flush());
}
