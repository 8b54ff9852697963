//! Who has a say in whether a tree is restored, besides the host itself.

use engine::Error;
use engine::image::{Layout, TreeImage};
use engine::inventory::Inventory;
use protocol::Refusal;

/// For a tree that another host has sent: nothing that its image says is believed.
pub trait Admission: Send + Sync {
    /// Before anything of this host is looked at for its sake.
    fn judge_inventory(&self, inventory: &Inventory) -> Result<Vec<Refusal>, Error>;

    /// Before anything of it is built.
    fn judge_image(&self, layout: &Layout, image: &TreeImage) -> Result<Vec<Refusal>, Error>;

    /// When it is complete: the ids of its processes, all stopped one step from running. It runs when
    /// this returns.
    fn admit_built(&self, pids: &[i32]) -> Result<(), Error>;
}

/// Whoever restores an image by a command of root's may do so.
#[derive(Debug)]
pub(crate) struct Anything;

impl Admission for Anything {
    fn judge_inventory(&self, _: &Inventory) -> Result<Vec<Refusal>, Error> {
        Ok(Vec::new())
    }

    fn judge_image(&self, _: &Layout, _: &TreeImage) -> Result<Vec<Refusal>, Error> {
        Ok(Vec::new())
    }

    fn admit_built(&self, _: &[i32]) -> Result<(), Error> {
        Ok(())
    }
}
