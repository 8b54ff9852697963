//! A destination that has no engine: it says yes to everything and stores nothing.

use super::{Character, Talk};
use crate::wait;
use anyhow::{Context, Result};
use link::{AuthorizedHosts, BulkReceiver, Connection, Identity, Listener, Tuning};
use nix::sys::signal::{Signal, raise};
use protocol::message::{Accept, Decided, Message, Outcome, Ready, RoundStored, Staged};
use protocol::stream::Role;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const CHUNK_BYTES: usize = 1 << 20;
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Until it is killed. Every message that it hears is a line of standard output.
pub async fn take_in(address: SocketAddr, config: &Path, character: Character) -> Result<()> {
    let identity = Identity::load_or_create(config)?;
    let authorised = AuthorizedHosts::load(config)?;
    let authorised = Arc::new(move |shown: &_| Ok(authorised.admit(shown)?));
    let listener = Listener::bind(address, &identity, authorised, &Tuning::bulk())?;
    tell("listening")?;
    loop {
        let connection = listener.accept().await?.establish().await?;
        tokio::spawn(drain(connection.clone()));
        tokio::spawn(report(converse(connection, character.clone())));
    }
}

async fn report(conversation: impl Future<Output = Result<()>>) {
    if let Err(error) = conversation.await {
        // The end of most conversations with somebody who refuses; for whoever reads the log.
        let _ = writeln!(io::stderr(), "{error:#}");
    }
}

/// Takes pages from every bulk stream, so that the source never waits for room.
async fn drain(connection: Connection) {
    while let Ok(stream) = connection.accept_bulk(SILENCE_MAX).await {
        tokio::spawn(drain_one(stream));
    }
}

async fn drain_one(mut stream: BulkReceiver) {
    while let Ok(Some(_)) = stream.read(CHUNK_BYTES, SILENCE_MAX).await {}
}

async fn converse(connection: Connection, character: Character) -> Result<()> {
    loop {
        let (role, talk) = Talk::accept(&connection).await?;
        match role {
            Role::Control(_) => answer_all(talk, &character).await?,
            // Nobody faults here. Held, because the source would miss it.
            _ => drop(tokio::spawn(talk.listen_only())),
        }
    }
}

async fn answer_all(mut talk: Talk, character: &Character) -> Result<()> {
    while let Some(message) = talk.hear().await? {
        tell(&format!("heard {}", message.name()))?;
        if character.dies_at(&message) {
            raise(Signal::SIGKILL)?;
        }
        if let Some(gate) = character.gate(&message) {
            until_there(gate.clone()).await?;
        }
        if let Some(answer) = answer(&message, character)? {
            talk.say(answer).await?;
        }
    }
    Ok(())
}

async fn until_there(gate: std::path::PathBuf) -> Result<()> {
    let name = gate.display().to_string();
    let opens =
        move || wait::until(SILENCE_MAX, || name.clone(), || Ok(gate.exists().then_some(())));
    tokio::task::spawn_blocking(opens).await.context("wait for a gate")?
}

/// What a destination says on which everything goes well.
fn answer(message: &Message, character: &Character) -> Result<Option<Message>> {
    Ok(Some(match message {
        Message::Hello(_) => Message::Hello(character.hello()?),
        Message::Offer(_) => Message::Accept(Accept::default()),
        Message::Stage(_) => Message::Staged(Staged {}),
        Message::RoundEnd(sent) => {
            Message::RoundStored(RoundStored { round: sent.round, pages: sent.pages })
        }
        Message::Image(_) => Message::Ready(Ready::default()),
        // A source that asks instead of handing over will not hand over any more.
        Message::Inquire(inquire) => {
            Message::Decided(Decided::new(inquire.migration, Outcome::Discarded, 0))
        }
        _ => return Ok(None),
    }))
}

fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
