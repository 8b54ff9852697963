//! System calls that a stopped thread is made to do, written down before they run.
//!
//! A batch is built without touching the thread, runs in one round trip (`Puppet::run`), and
//! leaves its answers in [`Answers`]. The result of one call can be an argument of a later one:
//! the descriptor that `openat` returned is closed in the same batch.

use crate::error::{Error, Object};
use std::io;

/// One argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Value(u64),
    /// The address, in the thread, of bytes that travel with the batch.
    Bytes(Bytes),
    /// What an earlier call of this batch returned. A result can be used at most twice.
    Result(Call),
}

/// Bytes beside a batch: input, or room for what the kernel writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// A call's place in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(pub(crate) usize);

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}
impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        Self::Value(value as u64)
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Value(u64::from(value))
    }
}
impl From<i32> for Arg {
    /// Sign-extended, as the C library does it: `-1` and `AT_FDCWD` come out right.
    fn from(value: i32) -> Self {
        Self::Value(i64::from(value).cast_unsigned())
    }
}
impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Value(value.cast_unsigned())
    }
}
impl From<Bytes> for Arg {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}
impl From<Call> for Arg {
    fn from(call: Call) -> Self {
        Self::Result(call)
    }
}

/// Builds an argument list out of mixed types: `args![fd, bytes, 8]`.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::batch::Arg::from($value)),*] };
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: i64,
    pub(crate) args: [Arg; 6],
    /// The verb phrase of the error when this call fails; `None` when failing is an answer.
    pub(crate) action: Option<&'static str>,
    pub(crate) object: Object,
}

#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) bytes: Vec<u8>,
    /// Words of `bytes` that are to hold the address of other bytes: (where, which).
    pub(crate) pointers: Vec<(usize, usize)>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A call that must succeed: otherwise the whole run is an error, "`action` `object`".
    pub fn call(
        &mut self,
        action: &'static str,
        object: &Object,
        number: i64,
        args: &[Arg],
    ) -> Call {
        self.push(Some(action), object.clone(), number, args)
    }

    /// A call that may fail; the caller reads the result.
    pub fn try_call(&mut self, number: i64, args: &[Arg]) -> Call {
        self.push(None, Object::Host, number, args)
    }

    fn push(
        &mut self,
        action: Option<&'static str>,
        object: Object,
        number: i64,
        args: &[Arg],
    ) -> Call {
        assert!(args.len() <= 6, "a system call has at most six arguments");
        let mut all = [Arg::Value(0); 6];
        all[..args.len()].copy_from_slice(args);
        self.entries.push(Entry { number, args: all, action, object });
        Call(self.entries.len() - 1)
    }

    /// Input bytes, 64-byte aligned.
    pub fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        let offset = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(bytes);
        Bytes { offset, length: bytes.len() }
    }

    /// A string with its final zero.
    pub fn string(&mut self, text: impl AsRef<[u8]>) -> Bytes {
        let mut bytes = text.as_ref().to_vec();
        bytes.push(0);
        self.bytes(&bytes)
    }

    /// Makes the eight bytes at `offset` of `within` the address of `to`: a pointer in a struct.
    pub fn pointer(&mut self, within: Bytes, offset: usize, to: Bytes) {
        assert!(offset + 8 <= within.length, "a pointer lies inside its struct");
        self.pointers.push((within.offset + offset, to.offset));
    }

    /// Zeroed room for an answer of `length` bytes.
    pub fn room(&mut self, length: usize) -> Bytes {
        self.bytes(&vec![0; length])
    }
}

/// What a batch returned.
#[derive(Debug)]
pub struct Answers {
    pub(crate) results: Vec<i64>,
    pub(crate) bytes: Vec<u8>,
}

impl Answers {
    /// The raw return value: negative is `-errno`.
    pub fn raw(&self, call: Call) -> i64 {
        self.results[call.0]
    }

    pub fn result(&self, call: Call) -> io::Result<u64> {
        let raw = self.raw(call);
        match u64::try_from(raw) {
            Ok(value) => Ok(value),
            // Addresses in the upper half do not occur in user space; -4095..=-1 are errors.
            Err(_) => Err(io::Error::from_raw_os_error(i32::try_from(-raw).unwrap_or(libc::EIO))),
        }
    }

    pub fn bytes(&self, at: Bytes) -> &[u8] {
        &self.bytes[at.offset..at.offset + at.length]
    }

    pub fn u32_at(&self, at: Bytes, index: usize) -> u32 {
        let start = at.offset + index * 4;
        u32::from_ne_bytes(self.bytes[start..start + 4].try_into().expect("four bytes"))
    }

    pub fn u64_at(&self, at: Bytes, index: usize) -> u64 {
        let start = at.offset + index * 8;
        u64::from_ne_bytes(self.bytes[start..start + 8].try_into().expect("eight bytes"))
    }

    /// The first call that had to succeed and did not.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), Error> {
        for (index, entry) in batch.entries.iter().enumerate() {
            let Some(action) = entry.action else { continue };
            if let Err(source) = self.result(Call(index)) {
                return Err(Error::new(action, entry.object.clone(), source));
            }
        }
        Ok(())
    }
}
