//! `migrate resume`: takes up a migration whose command was killed.

use crate::audience::Audience;
use crate::cli::Resume;
use crate::client::Client;
use crate::complaint::{Complaint, only_root};
use crate::ending::Purpose;
use crate::events::Event;
use crate::frames::Wish;
use crate::output::Output;
use crate::page_streams::Wishes;
use crate::unfinished::{NothingToDo, Unfinished};
use anyhow::Result;
use std::process::ExitCode;

pub(crate) async fn run(resume: Resume) -> Result<ExitCode> {
    if let Err(complaint) = only_root("resume a migration") {
        return Ok(complaint.say());
    }
    let client = Client { agent: &resume.agent, state: &resume.state.state };
    if let Some(code) = client.follow(Wish::Resume { id: resume.id }, resume.common.json).await? {
        return Ok(code.into());
    }
    let Resume { id, common, state, speed, .. } = resume;
    let unfinished = match Unfinished::open(&state.state, id) {
        Ok(unfinished) => unfinished,
        Err(why) => return Ok(nothing_to_do(&why, common.json)),
    };
    let audience = Audience::operator(common.json, Purpose::Move)?;
    let ending = unfinished.run(&common.config, Wishes::from(speed), None, audience).await;
    Ok(ending.code().into())
}

/// That it is settled is good news; an id that names nothing is not.
pub(crate) fn nothing_to_do(why: &NothingToDo, json: bool) -> ExitCode {
    if let NothingToDo::Settled { .. } = why {
        let (output, text) = (Output::new(json), format!("{why}."));
        output.text(&text);
        output.event(&Event::Note { text });
        return ExitCode::SUCCESS;
    }
    Complaint::from(why).say()
}
