//! Copies on another host: it says whether it can take them in before the tree is touched, gets its
//! image when that is whole and the tree runs again, and starts each copy at our word.

use super::line::{Line, LineError, PAYLOAD_BYTES_MAX};
use super::store;
use crate::attempt::new_id;
use crate::bulk::stream_head;
use crate::cli::{Duplicate, Moving};
use crate::connection::{self, Peer};
use crate::ending::{self, Ending, Purpose};
use crate::events::{Event, RestoreSummary};
use crate::home::Home;
use crate::inspection::{self, Looked};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::place::Place;
use crate::{greeting, hello};
use anyhow::Result;
use engine::image::FILES;
use engine::inventory::Counting;
use link::{Connection, Control};
use protocol::copies::{self, Image, Message, Offer, Runs, Start};
use protocol::framing::Decoder;
use protocol::limits::{ACCEPT_WAIT, COPY_WAIT, HELLO_WAIT};
use protocol::source::Inspection;
use protocol::stream::{self, Role};
use protocol::version::{Hello, What, agree, common_protocol, lacking};
use protocol::{MigrationId, Refusal};
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// How often it is looked whether the operator has cancelled.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// For what the destination begins by itself, and has a limit for.
const WORK_WAIT: Duration = COPY_WAIT.saturating_add(HELLO_WAIT);

pub(super) async fn run(
    duplicate: &Duplicate,
    to: Place,
    interrupt: &Arc<Interrupt>,
) -> Result<ExitCode> {
    let output = Output::new(duplicate.common.json);
    let mut cloning =
        Cloning { duplicate, interrupt, output: &output, host: to.host.clone(), run: 0 };
    let Err(ending) = cloning.perform(to).await else { return Ok(ExitCode::SUCCESS) };
    ending.say(&output, Purpose::Clone);
    if cloning.run > 0 {
        let Cloning { run, host, .. } = cloning;
        output.text(&format!("{run} of {} copies run on {host}.", duplicate.count));
    }
    Ok(ending.code().into())
}

struct Cloning<'a> {
    duplicate: &'a Duplicate,
    interrupt: &'a Arc<Interrupt>,
    output: &'a Output,
    host: String,
    /// Copies that do.
    run: u32,
}

impl Cloning<'_> {
    async fn perform(&mut self, to: Place) -> Result<(), Ending> {
        let inspection = self.unless_cancelled(self.look()).await?;
        let peer = Peer::new(to, &self.duplicate.common.config)?;
        let connection = self.unless_cancelled(async { Ok(peer.dial().await?) }).await?;
        let copied = self.converse(&connection, &inspection).await;
        // Whatever it still has of ours it gives up.
        connection::close(&connection, "no more is wanted").await;
        copied
    }

    /// Nothing is touched; what this host alone knows to be in the way needs no connection. Its pages
    /// come by fault there, for each process by itself.
    async fn look(&self) -> Result<Inspection, Ending> {
        let (pid, rules) = (self.duplicate.pid, self.duplicate.rules.into());
        let looking = spawn_blocking(move || {
            inspection::look(pid, rules, Counting::InEach, Moving::default())
        });
        let Looked { outcome, .. } = looking.await??;
        outcome.map_err(Ending::Refused)
    }

    async fn converse(
        &mut self,
        connection: &Connection,
        inspection: &Inspection,
    ) -> Result<(), Ending> {
        let mut line = self.unless_cancelled(self.ask(connection, inspection)).await?;
        let stored = store(self.duplicate, self.interrupt, self.output).await;
        let home = stored.map_err(|error| failed(&error))??;
        self.unless_cancelled(send(&mut line, &home)).await?;
        // It is there, and nobody needs it here.
        home.remove()?;
        for _ in 0..self.duplicate.count {
            self.start_one(&mut line).await?;
        }
        Ok(())
    }

    /// Whether the destination can take the copies in.
    async fn ask(&self, connection: &Connection, found: &Inspection) -> Result<Line, Ending> {
        let (id, ours) = (new_id()?, spawn_blocking(hello::of_this_host).await??);
        let theirs = greeting::exchange(connection, id, &ours).await?;
        let refusals = against(&ours, &theirs, found);
        if !refusals.is_empty() {
            return Err(Ending::Refused(refusals));
        }
        let mut line = open(connection, id).await?;
        let offer = Offer {
            count: self.duplicate.count,
            network_namespace: self.duplicate.network_namespace,
            memory_bytes: found.memory_bytes,
            inventory_bytes: found.inventory.len() as u64,
        };
        line.say(Message::Offer(offer)).await?;
        line.send(found.inventory.clone()).await?;
        match line.hear(ACCEPT_WAIT).await? {
            Message::Accept(_) => Ok(line),
            Message::Refuse(refuse) => Err(Ending::Refused(refuse.refusals)),
            other => Err(instead(other)),
        }
    }

    async fn start_one(&mut self, line: &mut Line) -> Result<(), Ending> {
        let ready = async { Ok(line.hear(WORK_WAIT).await?) };
        match self.unless_cancelled(ready).await? {
            Message::Ready(_) => {}
            other => return Err(instead(other)),
        }
        // It is to run: whether it does is waited for, whoever cancels.
        let told = line.say(Message::Start(Start {})).await;
        told.map_err(|error| self.in_doubt(&error))?;
        let heard = line.hear(WORK_WAIT).await;
        match heard.map_err(|error| self.in_doubt(&error))? {
            Message::Runs(runs) => {
                self.run += 1;
                self.tell(runs);
                Ok(())
            }
            other => Err(instead(other)),
        }
    }

    /// It may have its word, and nobody says what became of it.
    fn in_doubt(&self, error: &LineError) -> Ending {
        Ending::MayRunThere { host: self.host.clone(), chain: ending::chain(error) }
    }

    fn tell(&self, runs: Runs) {
        let Runs { pid, missing_pages, started_after_ns } = runs;
        let elapsed_ms = Duration::from_nanos(started_after_ns).as_secs_f64() * 1000.0;
        let rest = match missing_pages {
            0 => String::new(),
            pages => format!(" {} MiB of its memory follow.", pages >> 8),
        };
        let host = &self.host;
        self.output.text(&format!("Process {pid} of {host} runs after {elapsed_ms:.1} ms.{rest}"));
        self.output.event(&Event::Restored(RestoreSummary { pid, elapsed_ms, missing_pages }));
    }

    async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, Ending>>,
    ) -> Result<T, Ending> {
        let cancelled = async {
            while !self.interrupt.is_raised() {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        tokio::select! {
            done = work => done,
            () = cancelled => Err(Ending::Cancelled),
        }
    }
}

/// What the hosts have not in common.
fn against(ours: &Hello, theirs: &Hello, found: &Inspection) -> Vec<Refusal> {
    let mut mismatches = agree(ours, theirs).err().unwrap_or_default();
    mismatches.extend(lacking(What::Kind, &found.kinds, theirs));
    mismatches.extend(lacking(What::Aspect, &found.aspects, theirs));
    let mut refusals: Vec<Refusal> = mismatches.iter().map(|one| one.refusal(theirs)).collect();
    let spoken = common_protocol(ours, theirs);
    refusals.extend(spoken.filter(|spoken| *spoken < copies::SINCE).map(|spoken| {
        let reason = format!(
            "takes no copies in: it speaks protocol {spoken}, and they need {}",
            copies::SINCE
        );
        let host = format!("host {}", theirs.host.hostname);
        Refusal::new(host, reason, "Upgrade the destination.")
    }));
    refusals
}

async fn open(connection: &Connection, id: MigrationId) -> Result<Line, LineError> {
    let control = connection.open_control(0, PAYLOAD_BYTES_MAX, HELLO_WAIT).await?;
    let Control { mut sender, receiver, .. } = control;
    sender.send(stream_head(id, Role::Copies(stream::Copies {})), HELLO_WAIT).await?;
    Ok(Line::new(sender, receiver, Decoder::new()))
}

async fn send(line: &mut Line, home: &Home) -> Result<(), Ending> {
    let paths = FILES.map(|name| home.path().join(name));
    let mut lengths = [0; FILES.len()];
    for (length, path) in lengths.iter_mut().zip(&paths) {
        *length = fs::metadata(path)?.len();
    }
    let [pages_bytes, index_bytes, tree_bytes, manifest_bytes] = lengths;
    line.say(Message::Image(Image { pages_bytes, index_bytes, tree_bytes, manifest_bytes }))
        .await?;
    for (path, length) in paths.iter().zip(lengths) {
        line.send_file(path, length).await?;
    }
    Ok(())
}

/// When something else belongs there. The tree was touched by then: what is refused now has failed.
fn instead(message: Message) -> Ending {
    Ending::Failed(match message {
        Message::Refuse(refuse) => {
            let refusals = refuse.refusals.iter().map(ToString::to_string);
            std::iter::once("the destination refuses the copy".to_owned()).chain(refusals).collect()
        }
        Message::Failed(failure) => failure.lines().collect(),
        other => vec![LineError::Unexpected(other.name()).to_string()],
    })
}

fn failed(error: &anyhow::Error) -> Ending {
    Ending::Failed(error.chain().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspection() -> Inspection {
        Inspection {
            inventory: Vec::new().into(),
            memory_bytes: 0,
            process_count: 1,
            thread_count: 1,
            kinds: Vec::new(),
            aspects: Vec::new(),
            refusals: Vec::new(),
        }
    }

    #[test]
    fn a_destination_from_before_there_were_copies_is_refused_by_name() {
        let ours = hello::of_this_host().unwrap();
        let mut theirs = ours.clone();
        assert_eq!(against(&ours, &theirs, &inspection()), []);
        theirs.protocol_max = 1;
        theirs.host.hostname = "hostb".to_owned();
        let refusals = against(&ours, &theirs, &inspection());
        let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
        assert_eq!(refusal.object, "host hostb");
        assert!(refusal.reason.contains("speaks protocol 1"), "{refusal}");
        assert_eq!(refusal.advice, "Upgrade the destination.");
    }

    #[test]
    fn what_is_refused_after_the_dump_has_failed() {
        let refusals = vec![Refusal::new("file /x", "is another one there", "Copy it.")];
        let ending = instead(Message::Refuse(protocol::message::Refuse { refusals }));
        let Ending::Failed(chain) = ending else { panic!() };
        assert!(chain[1].contains("file /x"), "{chain:?}");
    }
}
