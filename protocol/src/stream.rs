//! The first words of a stream, and the small language of the fault connection.
//!
//! A fault is a program standing still until its page comes, so faults have a connection of their
//! own and never wait behind bulk data.

use crate::limits::{FAULT_PAGES_MAX, RUN_PAGES_MAX, SPACES_MAX, STREAMS_MAX};
use crate::message::MigrationId;
use crate::pages::is_range;

/// Opens every stream, as a frame, so that the destination knows what it is for.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StreamHead {
    #[prost(message, required, tag = "1")]
    pub migration: MigrationId,
    #[prost(oneof = "Role", tags = "2, 3, 4, 5")]
    pub role: Option<Role>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum Role {
    #[prost(message, tag = "2")]
    Control(Control),
    #[prost(message, tag = "3")]
    Bulk(Bulk),
    #[prost(message, tag = "4")]
    Faults(Faults),
    #[prost(message, tag = "5")]
    Copies(Copies),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Control {}

/// Page records of the slices whose number is `index`, out of `of`; see [`crate::pages::slice_of`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Bulk {
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(uint32, tag = "2")]
    pub of: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Faults {}

/// See [`crate::copies`]. Only for a destination that has said in its Hello that it knows of them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Copies {}

/// The frames of the fault connection.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FaultEnvelope {
    #[prost(oneof = "FaultMessage", tags = "1, 2")]
    pub message: Option<FaultMessage>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum FaultMessage {
    #[prost(message, tag = "1")]
    PageRequest(PageRequest),
    #[prost(message, tag = "2")]
    PageReply(PageReply),
}

/// The destination asks: the program waits for the first of these pages.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PageRequest {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(uint32, tag = "2")]
    pub space: u32,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    #[prost(uint32, tag = "4")]
    pub pages: u32,
}

/// The source answers; after this frame come `records_bytes` bytes of page records.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PageReply {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(uint32, tag = "2")]
    pub records_bytes: u32,
}

/// A frame that was well formed and says something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("a stream opened without saying which migration it is for")]
    NoMigration,
    #[error("a stream opened without saying what it is for")]
    NoRole,
    #[error("a stream calls itself number {index} of {of}")]
    Streams { index: u32, of: u32 },
    #[error("a frame on the fault connection is neither a request nor a reply")]
    NoFaultMessage,
    #[error("{pages} pages at {address:#x} of space {space} were asked for")]
    Request { space: u32, address: u64, pages: u32 },
    #[error("a reply announces {0} bytes of page records")]
    Reply(u32),
}

/// Every page in a record of its own, uncompressed: the longest a reply can be.
const REPLY_BYTES_MAX: u32 = FAULT_PAGES_MAX * (4096 + 32);

impl StreamHead {
    /// What the stream is for, when what it says is possible.
    pub fn check(&self) -> Result<Role, StreamError> {
        if !self.migration.is_valid() {
            return Err(StreamError::NoMigration);
        }
        match self.role.ok_or(StreamError::NoRole)? {
            Role::Bulk(Bulk { index, of }) if of > STREAMS_MAX || index >= of => {
                Err(StreamError::Streams { index, of })
            }
            role => Ok(role),
        }
    }
}

impl FaultEnvelope {
    pub fn check(&self) -> Result<FaultMessage, StreamError> {
        let message = self.message.ok_or(StreamError::NoFaultMessage)?;
        match message {
            FaultMessage::PageRequest(request) => request.check()?,
            FaultMessage::PageReply(PageReply { records_bytes, .. }) => {
                if records_bytes > REPLY_BYTES_MAX {
                    return Err(StreamError::Reply(records_bytes));
                }
            }
        }
        Ok(message)
    }
}

impl PageRequest {
    fn check(&self) -> Result<(), StreamError> {
        let Self { space, address, pages, .. } = *self;
        let possible = space < SPACES_MAX
            && (1..=FAULT_PAGES_MAX.min(RUN_PAGES_MAX)).contains(&pages)
            && is_range(address, pages);
        if possible { Ok(()) } else { Err(StreamError::Request { space, address, pages }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MigrationId = MigrationId { high: 1, low: 2 };

    fn head(role: Option<Role>) -> StreamHead {
        StreamHead { migration: ID, role }
    }

    #[test]
    fn a_stream_says_what_it_is_for() {
        let role = Role::Bulk(Bulk { index: 3, of: 4 });
        assert_eq!(head(Some(role)).check(), Ok(role));
        assert_eq!(head(None).check(), Err(StreamError::NoRole));
        let nameless = StreamHead { migration: MigrationId::default(), role: Some(role) };
        assert_eq!(nameless.check(), Err(StreamError::NoMigration));
    }

    #[test]
    fn an_impossible_number_of_streams_is_refused() {
        for (index, of) in [(0, 0), (4, 4), (0, STREAMS_MAX + 1), (u32::MAX, u32::MAX)] {
            let head = head(Some(Role::Bulk(Bulk { index, of })));
            assert_eq!(head.check(), Err(StreamError::Streams { index, of }));
        }
    }

    #[test]
    fn impossible_requests_are_refused() {
        let good = PageRequest { sequence: 1, space: 0, address: 0x1000, pages: 1 };
        let check =
            |request| FaultEnvelope { message: Some(FaultMessage::PageRequest(request)) }.check();
        assert_eq!(check(good), Ok(FaultMessage::PageRequest(good)));
        for bad in [
            PageRequest { pages: 0, ..good },
            PageRequest { pages: FAULT_PAGES_MAX + 1, ..good },
            PageRequest { address: 0x1001, ..good },
            PageRequest { address: u64::MAX - 0xfff, ..good },
            PageRequest { space: SPACES_MAX, ..good },
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reply_is_never_longer_than_a_request_can_ask_for() {
        let reply = |records_bytes| PageReply { sequence: 1, records_bytes };
        let check = |reply| FaultEnvelope { message: Some(FaultMessage::PageReply(reply)) }.check();
        assert!(check(reply(REPLY_BYTES_MAX)).is_ok());
        assert!(check(reply(REPLY_BYTES_MAX + 1)).is_err());
        assert_eq!(FaultEnvelope::default().check(), Err(StreamError::NoFaultMessage));
    }
}
