//! An aspect with its types erased, so that the main path can hold all of them in one list.

use super::{Aspect, Scope, Subject};
use crate::batch::{Answers, Batch};
use crate::error::Error;
use crate::refusal::Refusal;

/// Turns the answers to one aspect's queries into the bytes of its image.
pub(super) type Reader = Box<dyn FnOnce(&Subject<'_>, &Answers) -> Result<Vec<u8>, Error>>;

#[derive(Debug)]
pub struct AspectEntry {
    pub name: &'static str,
    pub version: u32,
    pub scope: Scope,
    pub examine: fn(&Subject<'_>) -> Vec<Refusal>,
    /// Writes the queries; what it returns turns their answers into image bytes.
    pub ask: fn(&Subject<'_>, &mut Batch) -> Reader,
    pub restore: fn(&[u8], &Subject<'_>, &mut Batch) -> Result<(), Error>,
    pub restore_outside: fn(&[u8], &Subject<'_>) -> Result<(), Error>,
    pub touched: fn(&[u8]) -> Vec<(u64, u64)>,
}

impl AspectEntry {
    pub(super) const fn of<A: Aspect>() -> Self {
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
                A::restore(&decode::<A>(bytes, subject)?, subject, batch)
            },
            restore_outside: |bytes, subject| {
                A::restore_outside(&decode::<A>(bytes, subject)?, subject)
            },
            // Bytes that cannot be read are an error when they are restored.
            touched: |bytes| {
                prost::Message::decode(bytes).map(|image| A::touched(&image)).unwrap_or_default()
            },
        }
    }
}

fn decode<A: Aspect>(bytes: &[u8], subject: &Subject<'_>) -> Result<A::Image, Error> {
    prost::Message::decode(bytes)
        .map_err(|e| Error::invalid("read the image of", subject.object(A::NAME), e.to_string()))
}

macro_rules! aspects {
    ($($module:ident: $aspect:ident),* $(,)?) => {
        $(mod $module;)*
        pub static ALL: &[AspectEntry] = &[$(AspectEntry::of::<$module::$aspect>()),*];
    };
}
pub(super) use aspects;
