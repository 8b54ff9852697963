//! `migrate PID --to HOST`, and taking it back: by the source agent when there is one, else here.

use crate::attempt::{Attempt, new_id};
use crate::audience::Audience;
use crate::cli::{Agent, Cancel, Move};
use crate::client::Client;
use crate::complaint::{Complaint, is_root, only_root};
use crate::ending::{Ending, Purpose};
use crate::frames::Wish;
use crate::output::{Output, print};
use crate::unfinished::unsettled;
use anyhow::Result;
use protocol::{MigrationId, Refusal};
use std::path::Path;
use std::process::ExitCode;

pub(crate) async fn run(moving: Move, agent: &Agent, detach: bool) -> Result<ExitCode> {
    let (state, json) = (moving.wishes.state.state.clone(), moving.wishes.common.json);
    if !is_root() {
        return Ok(untouched(&not_root(moving.pid), json));
    }
    let client = Client { agent, state: &state };
    let wish = Wish::Move(Box::new(moving.clone()));
    if detach {
        return leave(&client, wish).await;
    }
    match client.follow(wish, json).await {
        Ok(Some(code)) => return Ok(code.into()),
        Ok(None) => {}
        Err(error) => return Ok(untouched(&Ending::from(error), json)),
    }
    let audience = Audience::operator(json, Purpose::Move)?;
    let attempt = Attempt { id: new_id()?, moving, only_check: false };
    Ok(attempt.run(audience).await.code().into())
}

/// An ending before anything has begun.
fn untouched(ending: &Ending, json: bool) -> ExitCode {
    ending.say(&Output::new(json), Purpose::Move);
    ending.code().into()
}

fn not_root(pid: i32) -> Ending {
    let reason = "runs here as before, and only root may move it";
    Ending::Refused(vec![Refusal::new(format!("process {pid}"), reason, "Ask as root.")])
}

/// Without an agent there is nobody to leave it to.
async fn leave(client: &Client<'_>, wish: Wish) -> Result<ExitCode> {
    match client.leave(wish).await? {
        Ok(id) => {
            print(&format!("Migration {id} has begun. Follow it with: migrate status {id}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(complaint) => Ok(complaint.say()),
    }
}

pub(crate) async fn cancel(cancel: &Cancel) -> Result<ExitCode> {
    if let Err(complaint) = only_root("cancel a migration") {
        return Ok(complaint.say());
    }
    let client = Client { agent: &cancel.agent, state: &cancel.state.state };
    let wish = Wish::Cancel { id: cancel.id };
    if let Some(code) = client.follow(wish, cancel.common.json).await? {
        return Ok(code.into());
    }
    Ok(cannot_cancel(&cancel.state.state, cancel.id).say())
}

/// Of a migration that no source agent is at work on.
pub(crate) fn cannot_cancel(state: &Path, id: MigrationId) -> Complaint {
    match unsettled(state, id) {
        Err(why) => Complaint::from(&why),
        Ok(_) => Complaint::refused(format!(
            "no source agent is at work on migration {id}, and nothing was changed; a `migrate` \
             that moves it by itself is cancelled with Ctrl-C"
        )),
    }
}
