//! Conversations with the kernel as netlink(7) has them: a header, a fixed part, and attributes
//! within attributes.
//!
//! Written here and not taken from a crate: what we say is a dozen messages, nf_tables needs an
//! encoder anyway, and an address that is put back must have every attribute that it had, also
//! those that a typed decoder does not know yet.

mod socket;

pub(crate) use socket::Socket;
use std::io;

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const ALIGNMENT: usize = 4;
/// The upper two bits of an attribute's kind say how to read it, and not what it is.
const KIND_MASK: u16 = 0x3fff;

/// A request without its place in a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `fixed` is what stands between the header and the attributes, in whole words.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8], attributes: &Attributes) -> Self {
        assert!(fixed.len().is_multiple_of(ALIGNMENT), "a fixed part is whole words");
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).expect("the flags are 16 bits");
        Self { kind, flags, body: [fixed, &attributes.0].concat() }
    }

    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + self.body.len()).expect("a message is short");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}

/// Attributes on their way to the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len());
        self.0.extend(length.expect("an attribute is shorter than 64 KiB").to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// With the zero at its end.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// As rtnetlink(7) has its numbers.
    pub(super) fn native(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// As nf_tables has its numbers.
    pub(super) fn big_endian(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// As they stand in a message.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const NESTED: u16 = 1 << 15;

/// What the kernel says to one message.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// NLMSG_ERROR: the failure, if it is one and not an acknowledgement.
    pub(super) fn failure(&self) -> Option<Failure> {
        let errno = number(&self.body, 0)?.cast_signed().wrapping_neg();
        (errno != 0).then(|| Failure { errno, text: self.text().unwrap_or_default() })
    }

    /// In words, NETLINK_EXT_ACK (Linux 4.12): behind our own message, of which only the header
    /// comes back.
    fn text(&self) -> Option<String> {
        const ACK_TLVS: u16 = 0x200;
        const ATTR_MSG: u16 = 1;
        let rest = self.body.get(4 + HEADER_BYTES..).filter(|_| self.flags & ACK_TLVS != 0)?;
        let (_, text) = attributes(rest).find(|(kind, _)| *kind == ATTR_MSG)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

/// Why the kernel did not do what a message asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) errno: i32,
    text: String,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let bare = Self::from_raw_os_error(failure.errno);
        match failure.text.as_str() {
            "" => bare,
            text => Self::new(bare.kind(), format!("{bare}: {text}")),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { errno, text: String::new() },
            None => Self { errno: libc::EIO, text: error.to_string() },
        }
    }
}

fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some(length) = number(bytes, 0) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER_BYTES..length) else { break };
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let sequence = number(bytes, 8).unwrap_or_default();
        all.push(Answer { kind: half(4), flags: half(6), sequence, body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    all
}

/// The attributes that stand one after the other in `bytes`: kind and value. What is cut off at
/// the end is not there.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..ATTRIBUTE_HEADER_BYTES)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(fuzzing)]
pub(crate) fn parse(bytes: &[u8]) {
    for answer in answers(bytes) {
        let _ = (answer.failure(), attributes(&answer.body).count());
    }
}

/// A native number at a place.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let inner = Attributes::new().text(1, "lo").native(2, 7);
        let outer = Attributes::new().nest(9, &inner).big_endian(3, 1);
        let read: Vec<_> = attributes(&outer.0).collect();
        assert_eq!(read.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [9, 3]);
        assert_eq!(read[1].1, [0, 0, 0, 1]);
        let within: Vec<_> = attributes(read[0].1).collect();
        assert_eq!(within, [(1, &b"lo\0"[..]), (2, &7u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn cut_off_or_nonsensical_bytes_end_the_list() {
        let whole = Attributes::new().native(1, 1).native(2, 2).0;
        for length in 0..whole.len() {
            assert_eq!(attributes(&whole[..length]).count(), usize::from(length >= 8), "{length}");
        }
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(answers(&[0; 64]).len(), 0);
        assert_eq!(answers(&[0xff; 64]).len(), 0);
    }

    #[test]
    fn a_failure_has_its_number_and_what_the_kernel_says_of_it() {
        let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        let nothing = Message::new(libc::RTM_DELLINK, 0, &[0; 16], &Attributes::new());
        let failure = socket.request(&nothing).unwrap_err();
        assert_eq!(failure.errno, libc::EINVAL);
    }
}
