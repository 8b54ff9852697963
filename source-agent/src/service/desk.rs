//! One connection of the control socket: a request is read, and what becomes of it is told.

use super::Service;
use crate::attempt::{Attempt, new_id};
use crate::cli::{Answer, Move};
use crate::complaint::Complaint;
use crate::events::Event;
use crate::frames::{self, Frame, Request, Wish, Word};
use crate::news::News;
use crate::settle::acceptable;
use crate::start::cannot_cancel;
use crate::unfinished::{NothingToDo, unsettled};
use protocol::{MigrationId, Outcome};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Whoever connects has its request ready.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

type Reader = BufReader<OwnedReadHalf>;

/// What is said at once, or a migration to be followed.
enum Reply {
    Frames(Vec<Frame>),
    Follow(MigrationId, Receiver<Frame>),
}

impl Service {
    pub(super) async fn serve(self: Arc<Self>, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        if let Err(error) = self.converse(BufReader::new(reader), writer).await {
            tracing::debug!(%error, "a connection of the control socket has ended");
        }
    }

    async fn converse(
        self: &Arc<Self>,
        mut reader: Reader,
        mut writer: OwnedWriteHalf,
    ) -> io::Result<()> {
        let request: Option<Request> = timeout(REQUEST_WAIT, frames::read(&mut reader)).await??;
        let Some(Request { state, wish }) = request else { return Ok(()) };
        let reply = if is_same(&state, &self.options.state.state) {
            self.reply(wish)
        } else {
            Reply::Frames(vec![Frame::NotMine])
        };
        match reply {
            Reply::Frames(frames) => {
                for frame in frames {
                    frames::write(&mut writer, &frame).await?;
                }
                Ok(())
            }
            Reply::Follow(id, frames) => self.follow(id, frames, reader, writer).await,
        }
    }

    fn reply(self: &Arc<Self>, wish: Wish) -> Reply {
        match wish {
            Wish::Move(moving) => self.begin(*moving),
            Wish::Resume { id } => self.attend(id, None),
            Wish::Settle { id, answer } => self.attend(id, Some(answer)),
            Wish::Cancel { id } => match self.roster.join(id) {
                Some(frames) => {
                    self.roster.tell(id, News::Stop);
                    Reply::Follow(id, frames)
                }
                None => refused(cannot_cancel(&self.options.state.state, id)),
            },
            Wish::Live => {
                let live = self.roster.all().into_iter().map(Frame::Live);
                Reply::Frames(live.chain([Frame::End(0)]).collect())
            }
        }
    }

    fn begin(self: &Arc<Self>, mut moving: Move) -> Reply {
        let id = match new_id() {
            Ok(id) => id,
            Err(error) => {
                let why = format!("make an id for the migration: {error}");
                return refused(Complaint::failed(why));
            }
        };
        moving.wishes.common.config.clone_from(&self.options.config);
        moving.wishes.state.clone_from(&self.options.state);
        if !self.roster.enter(id, moving.pid, &moving.to.to_string()) {
            return refused(Complaint::refused(TOO_MANY));
        }
        let Some(frames) = self.roster.join(id) else { return Reply::Frames(Vec::new()) };
        tokio::spawn(Arc::clone(self).give(id, moving));
        Reply::Follow(id, frames)
    }

    /// A move from its beginning; what it leaves open is settled as after a restart.
    async fn give(self: Arc<Self>, id: MigrationId, moving: Move) {
        let Some(start) = self.roster.start(id) else { return };
        let attempt = Attempt { id, moving, only_check: false };
        let ending = attempt.run(start.audience).await;
        tracing::info!(migration = %id, ?ending, "a move has ended");
        self.roster.pause(id);
        if ending.is_unsettled() {
            return self.settle(id).await;
        }
        self.roster.leave(id);
    }

    /// A migration that is open: whoever is at work on it hears that somebody waits.
    fn attend(self: &Arc<Self>, id: MigrationId, answer: Option<Answer>) -> Reply {
        let past = match unsettled(&self.options.state.state, id) {
            Ok(past) => past,
            Err(why @ NothingToDo::Settled { .. }) => {
                let text = format!("{why}.");
                let note = json(&Event::Note { text: text.clone() });
                return Reply::Frames(vec![Frame::Text(text), Frame::Event(note), Frame::End(0)]);
            }
            Err(why) => return refused(Complaint::from(&why)),
        };
        let outcome = answer.map(Outcome::from);
        if let Some(Err(why)) = outcome.map(|outcome| acceptable(id, &past, outcome)) {
            return refused(Complaint::refused(why));
        }
        self.keep(id, past.header.root, &past.header.destination);
        let Some(frames) = self.roster.join(id) else {
            return refused(Complaint::refused(TOO_MANY));
        };
        self.roster.tell(id, outcome.map_or(News::Ask, News::Vouch));
        Reply::Follow(id, frames)
    }

    /// Until it ends, or whoever follows has had enough of it.
    async fn follow(
        self: &Arc<Self>,
        id: MigrationId,
        mut frames: Receiver<Frame>,
        reader: Reader,
        mut writer: OwnedWriteHalf,
    ) -> io::Result<()> {
        frames::write(&mut writer, &Frame::Begun(id)).await?;
        let listening = tokio::spawn(Arc::clone(self).listen(id, reader));
        let mut written = Ok(());
        while let Some(frame) = frames.recv().await {
            written = frames::write(&mut writer, &frame).await;
            if written.is_err() || matches!(frame, Frame::End(_)) {
                break;
            }
        }
        listening.abort();
        written
    }

    async fn listen(self: Arc<Self>, id: MigrationId, mut reader: Reader) {
        while let Ok(Some(Word::Stop)) = frames::read(&mut reader).await {
            self.roster.tell(id, News::Stop);
        }
    }
}

const TOO_MANY: &str = "nothing was changed: the source agent has too many moves under way";

fn refused(complaint: Complaint) -> Reply {
    Reply::Frames(vec![Frame::Refused(complaint)])
}

fn json(event: &Event) -> String {
    serde_json::to_string(event).expect("an event has text and numbers")
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || one.canonicalize().ok().is_some_and(|one| other.canonicalize().ok() == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_has_many_names_and_two_that_are_missing_are_not_the_same() {
        let directory = tempfile::tempdir().unwrap();
        assert!(is_same(directory.path(), &directory.path().join(".")));
        assert!(!is_same(Path::new("/nowhere/a"), Path::new("/nowhere/b")));
    }
}
