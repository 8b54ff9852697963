//! A kind as the rest of the engine has it: without its types, its images as bytes.

use super::{
    DescriptionImage, Findings, Ground, Kind, Maker, ObjectKey, Open, Others, Owner, Place, Rules,
    Seen, Tree, Wait,
};
use crate::batch::Batch;
use crate::error::{Error, Object};
use crate::network::{Flow, Gate};
use crate::refusal::Refusal;
use prost::DecodeError;
use std::os::fd::{BorrowedFd, OwnedFd};

type Examine = fn(&[&Seen], &dyn Tree, &mut Findings);
type Capture = fn(&[Open<'_>], &dyn Tree) -> Result<Vec<u8>, Error>;
type Outline = fn(&[Open<'_>], &dyn Tree) -> Result<Option<Vec<u8>>, Error>;
type Check = fn(&[u8], &[DescriptionImage], Ground<'_>) -> Result<Vec<Refusal>, Error>;
type Paths = fn(&[u8]) -> Result<Vec<String>, Error>;
type Describe = fn(&[u8], &DescriptionImage) -> Result<String, Error>;
type Identities = fn(&[u8]) -> Result<Vec<Maker>, Error>;
type Create = fn(&[u8], &[DescriptionImage], &Place<'_>) -> Result<Vec<OwnedFd>, Error>;
type CutOff = fn(&[u8]) -> Result<Option<Vec<u8>>, Error>;
type Dismiss = fn(&[u8]) -> Result<Option<Result<(), Error>>, Error>;
type Hold = fn(BorrowedFd<'_>, &Rules) -> Result<Option<Vec<u8>>, Error>;
type GoLive = fn(Option<&[u8]>, BorrowedFd<'_>) -> Result<(), Error>;
type Join =
    fn(&[u8], &[DescriptionImage], &dyn Others, Vec<OwnedFd>, &Place<'_>) -> Result<(), Error>;
type Connect = fn(&[u8], &DescriptionImage, Owner, &mut Batch) -> Result<(), Error>;

/// A kind with its types erased.
#[derive(Debug)]
pub struct KindEntry {
    pub name: &'static str,
    pub version: u32,
    pub has_life: bool,
    pub has_gate: bool,
    pub is_waited_for: bool,
    pub needs_owner: bool,
    pub claims: fn(&Seen) -> bool,
    pub key: fn(&Seen) -> ObjectKey,
    pub examine: Examine,
    pub role: fn(&Open<'_>) -> Result<u32, Error>,
    pub capture: Capture,
    pub outline: Outline,
    pub check: Check,
    pub paths: Paths,
    pub describe: Describe,
    pub identities: Identities,
    pub create: Create,
    pub cut_off: CutOff,
    pub dismiss: Dismiss,
    pub flow_of: fn(&[u8]) -> Result<Option<Flow>, Error>,
    pub flow: fn(&Open<'_>, &Rules) -> Result<Option<Flow>, Error>,
    pub gate: fn(&Open<'_>, &Rules) -> Result<Option<Gate>, Error>,
    pub waiting: fn(&Open<'_>, &Rules) -> Result<Option<Wait>, Error>,
    pub hold: Hold,
    pub take_back: fn(BorrowedFd<'_>, &[u8]) -> Result<(), Error>,
    pub leave: fn(BorrowedFd<'_>, &[u8]) -> Result<(), Error>,
    pub go_live: GoLive,
    pub speak: fn(BorrowedFd<'_>) -> Result<(), Error>,
    pub join: Join,
    pub connect: Connect,
}

impl KindEntry {
    pub(super) const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            version: K::VERSION,
            has_life: K::HAS_LIFE,
            has_gate: K::HAS_GATE,
            is_waited_for: K::IS_WAITED_FOR,
            needs_owner: K::NEEDS_OWNER,
            claims: K::claims,
            key: K::key,
            examine: K::examine,
            role: K::role,
            capture: |of, tree| Ok(encode(&K::capture(of, tree)?)),
            outline: |of, tree| Ok(K::outline(of, tree)?.as_ref().map(encode)),
            check: |bytes, descriptions, at| Ok(K::check(&decode::<K>(bytes)?, descriptions, at)),
            paths: |bytes| K::paths(bytes).map_err(undecodable::<K>),
            describe: |bytes, description| Ok(K::describe(&decode::<K>(bytes)?, description)),
            identities: |bytes| Ok(K::identities(&decode::<K>(bytes)?)),
            create: |bytes, descriptions, at| K::create(&decode::<K>(bytes)?, descriptions, at),
            cut_off: |bytes| Ok(K::cut_off(&decode::<K>(bytes)?).as_ref().map(encode)),
            dismiss: |bytes| Ok(K::dismiss(&decode::<K>(bytes)?)),
            flow_of: |bytes| Ok(K::flow_of(&decode::<K>(bytes)?)),
            flow: K::flow,
            gate: K::gate,
            waiting: K::waiting,
            hold: K::hold,
            take_back: K::take_back,
            leave: K::leave,
            go_live: |bytes, made| K::go_live(bytes.map(decode::<K>).transpose()?.as_ref(), made),
            speak: K::speak,
            join: |bytes, descriptions, others, spare, at| {
                K::join(&decode::<K>(bytes)?, descriptions, others, spare, at)
            },
            connect: |bytes, description, owner, batch| {
                K::connect(&decode::<K>(bytes)?, description, owner, batch)
            },
        }
    }
}

fn encode(image: &impl prost::Message) -> Vec<u8> {
    image.encode_to_vec()
}

fn decode<K: Kind>(bytes: &[u8]) -> Result<K::Image, Error> {
    prost::Message::decode(bytes).map_err(undecodable::<K>)
}

fn undecodable<K: Kind>(error: DecodeError) -> Error {
    Error::invalid("read", Object::Image { part: K::NAME.to_owned() }, error.to_string())
}
