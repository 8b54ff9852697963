//! A source that has no tree: it introduces itself and offers nothing, whatever it was answered.

use super::{Character, Talk};
use anyhow::Result;
use link::{Identity, KnownHosts, Tuning};
use protocol::MigrationId;
use protocol::message::{Message, Offer};
use std::net::SocketAddr;
use std::path::Path;

const MIGRATION: MigrationId = MigrationId { high: 7, low: 7 };

/// Where a source calls, and who it is.
#[derive(Debug)]
pub struct Speech<'a> {
    pub host: &'a str,
    pub address: SocketAddr,
    pub config: &'a Path,
}

/// The names of everything that the destination said, in their order.
pub async fn offer(to: &Speech<'_>, character: &Character) -> Result<Vec<&'static str>> {
    let identity = Identity::load_or_create(to.config)?;
    let known = KnownHosts::load(to.config)?;
    let connection = link::connect(to.host, to.address, &identity, &known, &Tuning::bulk()).await?;
    let mut talk = Talk::open(&connection, MIGRATION).await?;
    talk.say(Message::Hello(character.hello()?)).await?;
    let first = talk.hear().await?;
    talk.say(Message::Offer(Offer { migration: MIGRATION, ..Offer::default() })).await?;
    let rest = talk.listen_only().await?;
    Ok(first.iter().chain(&rest).map(Message::name).collect())
}
