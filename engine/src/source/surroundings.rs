//! What moves with a tree: addresses of this host, or a network namespace of its own.

use crate::error::{Error, Object};
use crate::network::NamespaceImage;
use crate::network::namespace::{self, Inside, Namespace};

/// What the operator wants to move besides the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Along {
    /// As `ADDR/LEN[@DEV]`.
    pub addresses: Vec<String>,
    /// To which bridges of the destination the cables of its namespace go: [`NamespaceImage::plug_into`].
    pub bridges: Vec<String>,
}

/// A network namespace of the tree's own, as it was when the move began.
#[derive(Debug)]
pub(super) struct Surroundings {
    namespace: Namespace,
    was: NamespaceImage,
    /// The same, with its cables plugged in as at the destination.
    pub(super) image: NamespaceImage,
}

impl Surroundings {
    /// `None` when it lives in ours.
    pub(super) fn of(root: i32, bridges: &[String]) -> Result<Option<Self>, Error> {
        let Some(namespace) = Namespace::of_process(root)? else { return Ok(None) };
        let was = namespace::read(&namespace)?;
        let mut image = was.clone();
        match image.plug_into(bridges).into_iter().next() {
            None => Ok(Some(Self { namespace, was, image })),
            Some(refusal) => Err(Error::invalid("move", refusal.object, refusal.reason)),
        }
    }

    /// The destination has made what was there then.
    pub(super) fn confirm(&self) -> Result<(), Error> {
        match namespace::change(&self.namespace, &self.was)? {
            None => Ok(()),
            Some(name) => {
                let name = format!("{name} of the tree's network namespace");
                let why = "it was changed while the tree was copied; try again";
                Err(Error::invalid("move", Object::Network { name }, why))
            }
        }
    }
}

/// The calling thread goes where the tree's sockets are, if they are elsewhere.
pub(super) fn enter(surroundings: Option<&Surroundings>) -> Result<Option<Inside>, Error> {
    namespace::enter(surroundings.map(|surroundings| &surroundings.namespace))
}
