//! What is said on the control socket: one JSON value a line, a request and then its frames.

use crate::cli::{Answer, Move};
use crate::complaint::Complaint;
use crate::progress::Progress;
use protocol::MigrationId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

/// Far more than a command line holds, or an event.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// To the source agent: the first line of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// An agent that keeps other journals is not the one that was meant.
    pub(crate) state: PathBuf,
    pub(crate) wish: Wish,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wish {
    Move(Box<Move>),
    /// Ask the destination again at once, and follow what becomes of it.
    Resume {
        #[serde(with = "text")]
        id: MigrationId,
    },
    Settle {
        #[serde(with = "text")]
        id: MigrationId,
        answer: Answer,
    },
    Cancel {
        #[serde(with = "text")]
        id: MigrationId,
    },
    /// What is under way now, journals aside.
    Live,
}

/// To the source agent, on a connection that follows a migration: Ctrl-C.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Stop,
}

/// From the source agent to whoever asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    /// The migration that the following frames are about.
    Begun(#[serde(with = "text")] MigrationId),
    /// As `--json` prints it.
    Event(String),
    /// A line for people.
    Text(String),
    Progress(Progress),
    Live(Live),
    /// It is not done, for this reason.
    Refused(Complaint),
    /// The agent keeps its journals elsewhere.
    NotMine,
    /// The last one: the exit code of the command.
    End(u8),
}

/// A migration that an agent is at work on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    #[serde(with = "text")]
    pub(crate) id: MigrationId,
    pub(crate) pid: i32,
    pub(crate) destination: String,
    /// What it is doing.
    pub(crate) phase: String,
    /// Since when the agent has been at work on it.
    pub(crate) since_unix_s: u64,
}

/// `None` at the end of the stream.
pub(crate) async fn read<T, R>(stream: &mut R) -> io::Result<Option<T>>
where
    T: for<'a> Deserialize<'a>,
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if !line.ends_with(b"\n") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line on the socket is cut off"));
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::from)
}

pub(crate) async fn write<T, W>(stream: &mut W, value: &T) -> io::Result<()>
where
    T: Serialize + Sync,
    W: AsyncWrite + Unpin,
{
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Ids and places as they are written on a command line.
pub(crate) mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    async fn read_back(bytes: &[u8]) -> io::Result<Option<Frame>> {
        read(&mut &*bytes).await
    }

    #[tokio::test]
    async fn a_frame_is_read_as_it_was_written() {
        let mut wire = Vec::new();
        write(&mut wire, &Frame::Begun(ID)).await.unwrap();
        write(&mut wire, &Frame::End(6)).await.unwrap();
        let mut wire = &*wire;
        assert!(matches!(read(&mut wire).await.unwrap(), Some(Frame::Begun(ID))));
        assert!(matches!(read(&mut wire).await.unwrap(), Some(Frame::End(6))));
        assert!(read::<Frame, _>(&mut wire).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error_and_not_a_wait() {
        for bytes in [&b"{\n"[..], b"{\"end\":6}", b"{\"end\":\"x\"}\n", b"\n"] {
            assert!(read_back(bytes).await.is_err(), "{bytes:?}");
        }
        let endless = vec![b' '; 2 << 20];
        assert!(read_back(&endless).await.is_err());
    }
}
