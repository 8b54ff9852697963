//! What every kind can be asked for.

use super::{
    DescriptionImage, Findings, Ground, Maker, ObjectKey, Open, Others, Owner, Place, Rules, Seen,
    Tree, Wait,
};
use crate::batch::Batch;
use crate::error::Error;
use crate::network::{Flow, Gate};
use crate::refusal::Refusal;
use prost::{DecodeError, Message as _};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a kind knows how to do. The two sides live in one file so that they change together.
pub trait Kind {
    /// As a person would say it; goes on the wire, so it never changes.
    const NAME: &'static str;
    const VERSION: u32 = 1;
    /// Whether others know it and go on talking to it: [`Self::flow`], [`Self::hold`], [`Self::go_live`].
    const HAS_LIFE: bool = false;
    /// Whether newcomers come in here: [`Self::gate`].
    const HAS_GATE: bool = false;
    /// Whether it can be in mid-way: [`Self::waiting`].
    const IS_WAITED_FOR: bool = Self::HAS_GATE;
    /// Whether `connect` is needed. Such an object cannot be in flight and in no table.
    const NEEDS_OWNER: bool = false;

    type Image: prost::Message + Default;

    /// Whether a description of this shape is one of these. At most one kind claims a shape.
    fn claims(seen: &Seen) -> bool;

    fn key(_seen: &Seen) -> ObjectKey {
        ObjectKey::Description
    }

    /// Why this object cannot be moved, and what will be different, found before the freeze.
    fn examine(_of: &[&Seen], _tree: &dyn Tree, _findings: &mut Findings) {}

    /// Which part of the object this description is; the default is the only part.
    fn role(_open: &Open<'_>) -> Result<u32, Error> {
        Ok(0)
    }

    /// Reads the object through any of its descriptions. Only reads: the source may keep it.
    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Self::Image, Error>;

    /// The part of the image that says what the destination must have, without the content; read
    /// while the tree runs. `None` when any host will do.
    fn outline(_of: &[Open<'_>], _tree: &dyn Tree) -> Result<Option<Self::Image>, Error> {
        Ok(None)
    }

    /// What this host lacks for the object that `outline` described.
    fn check(
        _outline: &Self::Image,
        _descriptions: &[DescriptionImage],
        _at: Ground<'_>,
    ) -> Vec<Refusal> {
        Vec::new()
    }

    /// The paths at which `create` finds what is there already, in an encoded image. It is looked
    /// at in the freeze, so contents that travel are not to be decoded for it.
    fn paths(_image: &[u8]) -> Result<Vec<String>, DecodeError> {
        Ok(Vec::new())
    }

    /// What tells it from others of its kind, for people who look at an image: a path, both ends of a
    /// connection and its state. The words are not for programs.
    fn describe(image: &Self::Image, _description: &DescriptionImage) -> String {
        Self::paths(&image.encode_to_vec()).unwrap_or_default().join(", ")
    }

    /// Whom this host will tell others that it was made by, if anybody outside of the tree asks.
    fn identities(_image: &Self::Image) -> Vec<Maker> {
        Vec::new()
    }

    /// One descriptor for each description, in their order; there is at least one. Status flags
    /// that F_SETFL can set, the offset of a file, and the owner are applied by the caller. What
    /// follows them is for `join` alone.
    fn create(
        image: &Self::Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error>;

    /// Whose packets nobody may answer from the end of the freeze on. Asked while the tree runs, to know
    /// what will have to be kept silent, and at last of the frozen tree, before it is captured: until then
    /// a connection may end.
    fn flow(_open: &Open<'_>, _rules: &Rules) -> Result<Option<Flow>, Error> {
        Ok(None)
    }

    /// The same, of an image: nobody may answer there before it lives.
    fn flow_of(_image: &Self::Image) -> Option<Flow> {
        None
    }

    /// As if it had lost whom it speaks to: for a host on which they cannot meet. `None` when that
    /// makes no difference.
    fn cut_off(_image: &Self::Image) -> Option<Self::Image> {
        None
    }

    /// Tells whom it spoke to that it is over, for a host on which it does not go on. `None` when there is
    /// nobody to tell.
    fn dismiss(_image: &Self::Image) -> Option<Result<(), Error>> {
        None
    }

    /// Where newcomers are held off from shortly before the freeze, so that those who wait already
    /// can be taken in; asked while the tree runs.
    fn gate(_open: &Open<'_>, _rules: &Rules) -> Result<Option<Gate>, Error> {
        Ok(None)
    }

    /// Why the tree had better not stand still at this moment: those who wait at the gate to be taken
    /// in by the program, what only the kernel has the half of. Asked while the tree runs, of what
    /// was seen before, and at last of the frozen tree.
    fn waiting(_open: &Open<'_>, _rules: &Rules) -> Result<Option<Wait>, Error> {
        Ok(None)
    }

    /// Done to the frozen original before the right to run is given away: whatever comes for it
    /// changes nothing any more, also when we die. What it was before, for [`Self::take_back`];
    /// `None` when there was nothing to do, and nothing is to be done when it ends.
    fn hold(_original: BorrowedFd<'_>, _rules: &Rules) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    /// Undoes [`Self::hold`], perhaps by a successor of who did it.
    fn take_back(_original: BorrowedFd<'_>, _before: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    /// Done to the original, which runs elsewhere, right before it is ended: what its end is to look
    /// like to others. With what [`Self::hold`] returned, perhaps by a successor.
    fn leave(_original: BorrowedFd<'_>, _before: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    /// Done on the destination when the tree has the right to run and its addresses are here,
    /// before it runs. A successor of the agent which made it has no image.
    fn go_live(_image: Option<&Self::Image>, _made: BorrowedFd<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Done when [`Self::go_live`] was done for all: one connection may lead to another of the same
    /// tree.
    fn speak(_made: BorrowedFd<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Done in our own process, after every object was made: what needs the others. `spare` is what
    /// `create` made for it.
    fn join(
        _image: &Self::Image,
        _descriptions: &[DescriptionImage],
        _others: &dyn Others,
        _spare: Vec<OwnedFd>,
        _at: &Place<'_>,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Done by the owner, after every table of the tree is complete. Called once for each process
    /// that has the description, with its lowest number there.
    fn connect(
        _image: &Self::Image,
        _description: &DescriptionImage,
        _owner: Owner,
        _batch: &mut Batch,
    ) -> Result<(), Error> {
        Ok(())
    }
}
