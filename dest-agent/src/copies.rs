//! Copies of a tree that stays at its source: its image comes into a directory here, and each copy is
//! started from there by a process of its own, which is the first in the copy's PID namespace.
//!
//! The image is gone when the last copy runs, when anything fails, or when the next agent starts. A
//! copy that has not the source's word yet ends with this agent, and one that runs does not.

mod errand;
mod first;
mod room;
mod stop;
mod terms;
mod words;

pub use errand::{Errand, run};

use crate::judge::name_of;
use crate::policy::{Place, Wish};
use crate::registry::Agent;
use crate::report;
use engine::failure_point;
use engine::host::Host;
use engine::image::FILES;
use first::{Cut, First};
use link::Connection;
use protocol::MigrationId;
use protocol::copies::{Accept, Image, Message, Offer, Ready, Runs};
use protocol::limits::{COPY_WAIT, DUMP_WAIT, OFFER_WAIT, READY_WAIT};
use protocol::message::Refuse;
use source_agent::copies::{Home, Line, LineError, new_id, outside};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::{Stop, engine, failed, refused, stopped};
use tokio::task::spawn_blocking;
use words::Word;

/// For the last word to arrive.
const FINISH_WAIT: Duration = Duration::from_secs(5);

/// One conversation about copies, from its first word.
pub async fn take_in(mut line: Line, connection: Connection, id: MigrationId, agent: Arc<Agent>) {
    let source = name_of(&connection.fingerprint(), connection.names());
    let taken = Taking { connection, id, agent }.perform(&mut line).await;
    let said = match taken {
        Ok(count) => {
            tracing::info!(%id, %source, "{count} copies run");
            Ok(())
        }
        Err(Stop::Refused(refusals)) => {
            let reasons: Vec<String> = refusals.iter().map(crate::judge::one_line).collect();
            tracing::warn!(%id, %source, "copies are refused: {}", reasons.join("; "));
            line.say(Message::Refuse(Refuse::new(refusals))).await
        }
        Err(Stop::Failed(failure)) => {
            let lines: Vec<String> = failure.lines().collect();
            tracing::warn!(%id, %source, "{}", lines.join(": "));
            line.say(Message::Failed(failure)).await
        }
        Err(Stop::Lost(error)) => Err(error),
    };
    let finished = match said {
        Ok(()) => line.finish(FINISH_WAIT).await,
        Err(error) => Err(error),
    };
    if let Err(error) = finished {
        tracing::info!(%id, %source, "no more about copies: {}", report::chain(&error));
    }
}

struct Taking {
    connection: Connection,
    id: MigrationId,
    agent: Arc<Agent>,
}

impl Taking {
    /// Returns how many copies run.
    async fn perform(&self, line: &mut Line) -> Result<u32, Stop> {
        let offer = match line.hear(OFFER_WAIT).await? {
            Message::Offer(offer) => offer,
            other => return Err(LineError::Unexpected(other.name()).into()),
        };
        let (place, memory_bytes_max) = self.promise(offer).await?;
        let state = self.agent.state.clone();
        room::look(&state, offer.memory_bytes)?;
        let home = Home::make(&state, &self.id.to_string()).map_err(|error| engine(&error))?;
        let errand = self.errand(&home, offer, memory_bytes_max);
        self.judge(line, &errand, offer).await?;
        line.say(Message::Accept(Accept {})).await?;
        let image = match line.hear(DUMP_WAIT).await? {
            Message::Image(image) => image,
            other => return Err(LineError::Unexpected(other.name()).into()),
        };
        room::look(&state, image.bytes())?;
        receive(line, home.path(), image).await?;
        for _ in 0..offer.count {
            self.start_one(line, &errand, &place).await?;
        }
        Ok(offer.count)
    }

    /// The room of one tree that is on its way, with memory for all of its copies; and how much memory
    /// there is to give.
    async fn promise(&self, offer: Offer) -> Result<(Arc<Place>, u64), Stop> {
        let (agent, peer) = (Arc::clone(&self.agent), self.connection.fingerprint());
        let names = self.connection.names().to_vec();
        let promising = spawn_blocking(move || {
            let rules = agent.policy.rules(&peer, &names).map_err(|error| {
                tracing::error!("nobody may send here: {}", report::chain(&error));
                Stop::Refused(vec![crate::judge::no_policy()])
            })?;
            let free_bytes = Host::look().map_err(|error| engine(&error))?.free_memory_bytes;
            let memory_bytes = offer.memory_bytes.saturating_mul(offer.count.into());
            let (gate, trees_max) = (Arc::default(), rules.trees_max);
            let wish = Wish { memory_bytes, gate, peer, trees_max };
            agent.policy.promise(wish, free_bytes).map_err(|refusal| Stop::Refused(vec![refusal]))
        });
        promising.await.map_err(|error| failed("promise room to", &error))?
    }

    fn errand(&self, home: &Home, offer: Offer, memory_bytes_max: u64) -> Errand {
        Errand {
            images_dir: home.path().to_owned(),
            state: self.agent.state.clone(),
            config: self.agent.policy.config().to_owned(),
            source: self.connection.fingerprint(),
            names: self.connection.names().to_vec(),
            count: offer.count,
            memory_bytes: offer.memory_bytes,
            memory_bytes_max,
            network_namespace: offer.network_namespace,
            scope: None,
            only_judge: false,
        }
    }

    /// In namespaces like those of the copies: there the ids of the tree are free.
    async fn judge(&self, line: &mut Line, errand: &Errand, offer: Offer) -> Result<(), Stop> {
        line.receive_file(&errand.inventory(), offer.inventory_bytes).await?;
        let errand = Errand { only_judge: true, ..errand.clone() };
        let first = begin(errand).await?;
        match word(first).await? {
            (_, Word::Judged(refusals)) if refusals.is_empty() => Ok(()),
            (_, Word::Judged(refusals)) => Err(refused(refusals)),
            (_, other) => Err(other.into()),
        }
    }

    async fn start_one(
        &self,
        line: &mut Line,
        errand: &Errand,
        place: &Arc<Place>,
    ) -> Result<(), Stop> {
        let began = Instant::now();
        let scope = new_id().and_then(|id| self.agent.scopes.make(id));
        let scope = scope.map_err(|error| failed("make a control group for", &error))?;
        let scope_path = scope.as_ref().map(|scope| scope.path().to_owned());
        let first = begin(Errand { scope: scope_path, ..errand.clone() }).await?;
        let first = match word(first).await? {
            (first, Word::Waits) => first,
            (_, other) => return Err(other.into()),
        };
        let built_within = began.elapsed();
        line.say(Message::Ready(Ready {})).await?;
        let mut first = match line.hear(READY_WAIT).await? {
            Message::Start(_) => first,
            other => return Err(LineError::Unexpected(other.name()).into()),
        };
        pass("copies.permit", "before").await?;
        let permitted = Instant::now();
        first.permit().map_err(|error| failed("let go", &error))?;
        let (first, inside, missing_pages) = match word(first).await? {
            (first, Word::Runs { pid, missing_pages }) => (first, pid, missing_pages),
            (_, other) => return Err(other.into()),
        };
        let pid = outside(first.pid(), inside);
        let took = built_within + permitted.elapsed();
        tokio::spawn(first.let_go(Arc::clone(place)));
        let Some(pid) = pid else { return Err(stopped("it ended at once")) };
        let started_after_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        line.say(Message::Runs(Runs { pid, missing_pages, started_after_ns })).await?;
        Ok(())
    }
}

async fn receive(line: &mut Line, home: &Path, image: Image) -> Result<(), Stop> {
    let Image { pages_bytes, index_bytes, tree_bytes, manifest_bytes } = image;
    let lengths = [pages_bytes, index_bytes, tree_bytes, manifest_bytes];
    for (name, bytes) in FILES.iter().zip(lengths) {
        line.receive_file(&home.join(name), bytes).await?;
        pass("copies.receive", name).await?;
    }
    Ok(())
}

/// A place may be one to wait at.
async fn pass(step: &'static str, side: &'static str) -> Result<(), Stop> {
    let passed = spawn_blocking(move || failure_point::pass(step, side)).await;
    passed.map_err(|error| failed("pass a place of", &error))?.map_err(|error| engine(&error))
}

async fn begin(errand: Errand) -> Result<First, Stop> {
    let begun = spawn_blocking(move || First::begin(&errand)).await;
    let begun = begun.unwrap_or_else(|error| Err(io::Error::other(error)));
    begun.map_err(|error| failed("begin", &error))
}

/// What the first process of a copy says next. Dropped before it is let go, it ends, and its copy too.
async fn word(mut first: First) -> Result<(First, Word), Stop> {
    let hearing = spawn_blocking(move || {
        let word = first.word(COPY_WAIT);
        (first, word)
    });
    match hearing.await {
        Ok((first, Ok(word))) => Ok((first, word)),
        Ok((_, Err(Cut::Ended))) => Err(stopped("it ended without a word, and the log says why")),
        Ok((_, Err(Cut::Slow))) => Err(stopped("it took too long")),
        Ok((_, Err(Cut::Broken(error)))) => Err(failed("hear", &error)),
        Err(error) => Err(failed("hear", &error)),
    }
}
