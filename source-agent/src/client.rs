//! The command's end of the control socket: what the source agent does is shown as if it were done
//! here.

use crate::audience::watch_signals;
use crate::cli::Agent;
use crate::complaint::Complaint;
use crate::ending::{Purpose, chain};
use crate::frames::{self, Frame, Live, Request, Wish, Word};
use crate::news::{self, Inbox};
use crate::output::Output;
use crate::unfinished::abandoned;
use engine::{Error, Object, OnObject as _};
use protocol::MigrationId;
use std::io;
use std::path::Path;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A source agent that is there and keeps the same journals.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) state: &'a Path,
}

impl Client<'_> {
    /// Has it done there and follows it to its end. `None` when there is no such agent: then it is
    /// to be done here. An error is one of asking: nothing has begun.
    pub(crate) async fn follow(&self, wish: Wish, json: bool) -> Result<Option<u8>, Error> {
        let signals = watch().on("watch signals on", || Object::Host)?;
        let Some((mut reader, writer)) = self.ask(wish).await? else { return Ok(None) };
        tokio::spawn(pass_on(signals, writer));
        let output = Output::new(json);
        let mut begun = None;
        loop {
            match self.read(&mut reader).await {
                Ok(Some(Frame::Begun(id))) => begun = Some(id),
                Ok(Some(Frame::NotMine)) => return Ok(None),
                Ok(Some(Frame::Refused(complaint))) => {
                    output.clear();
                    complaint.say();
                    return Ok(Some(complaint.code()));
                }
                Ok(Some(Frame::End(code))) => {
                    output.clear();
                    return Ok(Some(code));
                }
                Ok(Some(frame)) => output.frame(frame),
                Ok(None) => return Ok(Some(self.left(begun, &output, Vec::new()))),
                Err(error) => return Ok(Some(self.left(begun, &output, chain(&error)))),
            }
        }
    }

    /// Has it done there, and tells the id of what was begun.
    pub(crate) async fn leave(&self, wish: Wish) -> Result<Result<MigrationId, Complaint>, Error> {
        let nobody = || {
            let what = "--detach needs a source agent that keeps the same journals";
            Err(Complaint::refused(format!("nothing was begun: {what}")))
        };
        let Some((mut reader, _writer)) = self.ask(wish).await? else { return Ok(nobody()) };
        Ok(match self.read(&mut reader).await? {
            Some(Frame::Begun(id)) => Ok(id),
            Some(Frame::NotMine) => nobody(),
            Some(Frame::Refused(complaint)) => Err(complaint),
            _ => Err(Complaint::failed(NOT_TAKEN_ON)),
        })
    }

    /// What it is at work on; nothing when there is no agent.
    pub(crate) async fn live(&self) -> Vec<Live> {
        let Ok(Some((mut reader, _writer))) = self.ask(Wish::Live).await else { return Vec::new() };
        let mut found = Vec::new();
        while let Ok(Some(Frame::Live(live))) = self.read(&mut reader).await {
            found.push(live);
        }
        found
    }

    async fn ask(
        &self,
        wish: Wish,
    ) -> Result<Option<(BufReader<OwnedReadHalf>, OwnedWriteHalf)>, Error> {
        let stream = match UnixStream::connect(&self.agent.socket).await {
            Err(error) if is_nobody(&error) => return Ok(None),
            other => other.on("reach the source agent on", || self.object())?,
        };
        let (reader, mut writer) = stream.into_split();
        let request = Request { state: self.state.to_owned(), wish };
        let asked = frames::write(&mut writer, &request).await;
        asked.on("ask the source agent on", || self.object())?;
        Ok(Some((BufReader::new(reader), writer)))
    }

    async fn read(&self, reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Frame>, Error> {
        frames::read(reader).await.on("hear the source agent on", || self.object())
    }

    /// The agent has ended before what it was asked for has.
    fn left(&self, begun: Option<MigrationId>, output: &Output, causes: Vec<String>) -> u8 {
        output.clear();
        let Some(id) = begun else {
            let why = [vec![NOT_TAKEN_ON.to_owned()], causes].concat();
            let complaint = Complaint::failed(why.join(": "));
            complaint.say();
            return complaint.code();
        };
        let why = format!("the source agent ended while it was at work on migration {id}");
        let ending = abandoned(self.state, id, [vec![why], causes].concat());
        ending.say(output, Purpose::Move);
        ending.code()
    }

    fn object(&self) -> Object {
        Object::File { path: self.agent.socket.display().to_string() }
    }
}

/// No socket, or one that nobody listens on any more.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

const NOT_TAKEN_ON: &str = "the source agent did not take it on, and nothing was changed";

fn watch() -> io::Result<Inbox> {
    let (post, inbox) = news::queue();
    watch_signals(&post)?;
    Ok(inbox)
}

/// Ctrl-C cancels there.
async fn pass_on(mut signals: Inbox, mut writer: OwnedWriteHalf) {
    while signals.recv().await.is_some() {
        let _agent_has_gone = frames::write(&mut writer, &Word::Stop).await;
    }
}
