//! The cables between this host and the network namespace of a tree: the host's ends of them.

use engine::network::namespace::cable;
use engine::network::{Cable, Namespace};
use engine::{Error, Object};
use prost::Message as _;
use serde::{Deserialize, Serialize};

/// Stands in the journal from the beginning: a device that is down outlives whoever set it down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cables(
    /// [`Cable`], encoded.
    Vec<Vec<u8>>,
);

impl Cables {
    /// Those of a tree in a network namespace of its own, before anything is done to them.
    pub(crate) fn of(root: i32) -> Result<Self, Error> {
        let Some(namespace) = Namespace::of_process(root)? else { return Ok(Self::default()) };
        let cables = cable::into(&namespace)?;
        Ok(Self(cables.iter().map(Cable::encode_to_vec).collect()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From here on the tree hears nobody, and nobody hears of it.
    pub(crate) fn cut(self) -> Result<Cut, Error> {
        let cut = Cut { cables: self, is_left: false };
        cut.cables.each(Cable::cut)?;
        Ok(cut)
    }

    /// As they were. All are tried; the error is the first.
    pub(crate) fn join(&self) -> Result<(), Error> {
        self.each(Cable::join)
    }

    /// The tree runs elsewhere, with cables of its own there.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.each(Cable::remove)
    }

    fn each(&self, with: impl Fn(&Cable) -> Result<(), Error>) -> Result<(), Error> {
        let part = || Object::Image { part: "device in the journal".to_owned() };
        let each = self.0.iter().map(|cable| {
            let cable = Cable::decode(&cable[..]);
            with(&cable.map_err(|why| Error::invalid("read the", part(), why.to_string()))?)
        });
        each.fold(Ok(()), Result::and)
    }
}

/// Cables that were cut. To drop this joins them again, as a tree that was not given away goes on
/// here; not so after [`Self::leave`].
#[derive(Debug)]
pub(crate) struct Cut {
    cables: Cables,
    is_left: bool,
}

impl Cut {
    /// They stay cut: whoever settles the move knows of them from the journal.
    pub(crate) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if !self.is_left
            && let Err(error) = self.cables.join()
        {
            tracing::error!("{error}: {}", error.source);
        }
    }
}
