//! Who follows a migration: where its words go, and where wishes for it come from.
//!
//! A session does not know whether that is a terminal or a source agent.

use crate::ending::Purpose;
use crate::news::{self, Inbox, News, Post};
use crate::output::Output;
use crate::report::Report;
use crate::session::Patience;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) report: Report,
    pub(crate) post: Post,
    pub(crate) inbox: Inbox,
    pub(crate) patience: Patience,
}

impl Audience {
    /// The operator who typed the command, and whose signals cancel it.
    pub(crate) fn operator(json: bool, purpose: Purpose) -> io::Result<Self> {
        let (post, inbox) = news::queue();
        watch_signals(&post)?;
        let report = Report::new(Output::new(json), purpose);
        Ok(Self { report, post, inbox, patience: Patience::Operator })
    }
}

/// A closed terminal is an operator who has gone, and is treated as one who cancels.
pub(crate) fn watch_signals(post: &Post) -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, post) = (signal(kind)?, post.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if post.send(News::Stop).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
