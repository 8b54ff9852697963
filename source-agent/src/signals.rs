//! Signals that are not for us: they are passed on to whoever we stand for.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What a shell or an operator sends to a program to tell it something.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// From here on these signals do not end us.
    pub(crate) fn watch() -> io::Result<Self> {
        // Whoever has started us may have blocked them, and that is inherited.
        PASSED_ON.into_iter().collect::<SigSet>().thread_unblock()?;
        let (sender, receiver) = mpsc::channel(PASSED_ON.len());
        for kind in PASSED_ON {
            let mut signals = signal(SignalKind::from_raw(kind as i32))?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() && sender.send(kind).await.is_ok() {}
            });
        }
        Ok(Self(receiver))
    }

    pub(crate) async fn next(&mut self) -> Option<Signal> {
        self.0.recv().await
    }
}
