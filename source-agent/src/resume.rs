//! `migrate resume`: takes up a migration whose command was killed.

use crate::bulk::Moved;
use crate::cli::{Resume, Vouch};
use crate::connection::Peer;
use crate::engine_thread::{EngineThread, Tree, Workplace};
use crate::hello;
use crate::journal::{Journal, Past};
use crate::news;
use crate::output::Output;
use crate::page_streams::Wishes;
use crate::report::Report;
use crate::run::watch_signals;
use crate::session::{Course, Session};
use anyhow::{Context as _, Result};
use protocol::source::State;
use protocol::{Outbox, Outcome};
use std::process::ExitCode;

pub(crate) async fn run(resume: Resume) -> Result<ExitCode> {
    let Resume { id, vouch, common, state, speed } = resume;
    let (journal, past) = Journal::reopen(&state.state, id)?;
    let Some(last) = past.last else { return Ok(nothing_was_touched()) };
    let place = past.header.place().context("the journal names no destination")?;
    let peer = Peer::new(place, &common.config)?;
    let (post, inbox) = news::queue();
    watch_signals(post.clone())?;
    let (root, tree) = (past.header.root, tree(past)?);
    let wishes = Wishes { bandwidth_megabit: speed.bandwidth, compress: speed.compress };
    let workplace = Workplace { root, journal: Some(journal), wishes, post: post.clone(), tree };
    let engine = EngineThread::start(workplace).context("start the engine's thread")?;
    let mut out = Outbox::new();
    let machine = State::recover(id, last, &mut out);
    let session = Session {
        id,
        peer,
        line: None,
        engine,
        inbox,
        post,
        moved: Moved::default(),
        report: Report::new(Output::new(common.json)),
        vouched: vouch.map(Outcome::from),
        course: Course::new(0),
    };
    Ok(session.run(machine, out).await.code())
}

fn nothing_was_touched() -> ExitCode {
    crate::output::print("Nothing was touched: there is nothing to resume.");
    ExitCode::SUCCESS
}

/// A tree does not outlive its kernel, and ids of another boot are other processes.
fn tree(past: Past) -> Result<Tree> {
    let boot_id = hello::of_this_host()?.host.boot_id;
    let same = boot_id == past.header.boot_id;
    Ok(if same { Tree::LeftBehind(past.members) } else { Tree::Ended })
}

impl From<Vouch> for Outcome {
    fn from(vouch: Vouch) -> Self {
        match vouch {
            Vouch::RunsThere => Self::Running,
            Vouch::Discarded => Self::Discarded,
        }
    }
}
