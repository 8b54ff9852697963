//! The aspects of a process or thread: kernel state that is behind no descriptor.
//!
//! An aspect is one file: how it is read from a stopped thread, and how a new thread is given it,
//! with the test of both. To add one, write the file and add its line to the list below; the
//! order of the list is the order in which a new thread is given them (credentials late, because
//! the others may need privilege).
//!
//! Both sides only write system calls into a [`Batch`]: all aspects of a thread cost one round
//! trip together, because five hundred threads are captured inside the freeze.

use crate::batch::{Answers, Batch};
use crate::error::{Error, Object};
use crate::refusal::Refusal;

aspects! {
    robust_list: RobustList,
}

/// Once per process (asked of its leader), or once per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Process,
    Thread,
}

/// Whose state it is. `/proc/{pid}/task/{tid}` may be read too, but each file costs 5-20 us a
/// thread inside the freeze; `status` is already read and parsed here because several need it.
#[derive(Debug)]
pub struct Subject<'a> {
    pub pid: i32,
    pub tid: i32,
    /// The text of `/proc/{pid}/task/{tid}/status`, empty while restoring.
    pub status: &'a str,
}

impl Subject<'_> {
    pub fn object(&self, name: &'static str) -> Object {
        Object::Aspect { tid: self.tid, name }
    }

    /// A field of `status`: `field("SigIgn")`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }
}

/// What an aspect knows how to do. The two sides live in one file so that they change together.
pub trait Aspect {
    /// As a person would say it; goes on the wire, so it never changes.
    const NAME: &'static str;
    const VERSION: u32 = 1;
    const SCOPE: Scope;

    type Image: prost::Message + Default;
    /// The calls whose answers `read` needs.
    type Asked: 'static;

    /// What cannot be carried, seen from outside before anything is stopped.
    fn examine(_subject: &Subject<'_>) -> Vec<Refusal> {
        Vec::new()
    }

    /// Writes the queries into the batch. Capture only reads: the source may keep its process.
    fn ask(subject: &Subject<'_>, batch: &mut Batch) -> Self::Asked;

    fn read(
        subject: &Subject<'_>,
        asked: Self::Asked,
        answers: &Answers,
    ) -> Result<Self::Image, Error>;

    /// Writes the calls that give a new thread this state.
    fn restore(image: &Self::Image, subject: &Subject<'_>, batch: &mut Batch) -> Result<(), Error>;
}

type Reader = Box<dyn FnOnce(&Subject<'_>, &Answers) -> Result<Vec<u8>, Error>>;

/// An aspect with its types erased.
#[derive(Debug)]
pub struct AspectEntry {
    pub name: &'static str,
    pub version: u32,
    pub scope: Scope,
    pub examine: fn(&Subject<'_>) -> Vec<Refusal>,
    /// Writes the queries; what it returns turns their answers into image bytes.
    pub ask: fn(&Subject<'_>, &mut Batch) -> Reader,
    pub restore: fn(&[u8], &Subject<'_>, &mut Batch) -> Result<(), Error>,
}

impl AspectEntry {
    const fn of<A: Aspect>() -> Self {
        Self {
            name: A::NAME,
            version: A::VERSION,
            scope: A::SCOPE,
            examine: A::examine,
            ask: |subject, batch| {
                let asked = A::ask(subject, batch);
                Box::new(move |subject, answers| {
                    A::read(subject, asked, answers).map(|i| prost::Message::encode_to_vec(&i))
                })
            },
            restore: |bytes, subject, batch| {
                let image = <A::Image as prost::Message>::decode(bytes)
                    .map_err(|e| Error::invalid("read", subject.object(A::NAME), e.to_string()))?;
                A::restore(&image, subject, batch)
            },
        }
    }
}

macro_rules! aspects {
    ($($module:ident: $aspect:ident),* $(,)?) => {
        $(mod $module;)*
        pub static ALL: &[AspectEntry] = &[$(AspectEntry::of::<$module::$aspect>()),*];
    };
}
use aspects;
