//! The files of a tree that are stored with it.

use super::course::Interruptible;
use crate::ending::Ending;
use crate::inspection::refusal;
use crate::interrupt::Interrupt;
use engine::Error;
use engine::image::copied::{self, Copied, Copier, Named};
use engine::image::{Layout, TreeImage, Writer, decode};
use engine::inventory::Inventory;
use engine::memory::PageSink;
use engine::priority::{Half, Yielding};
use protocol::source::Inspection;

/// Those that it had when it was looked at, and what is copied of them.
#[derive(Debug)]
pub(super) struct Files {
    named: Named,
    copier: Copier,
}

impl Files {
    /// Nothing without a bound: then they stay where they are.
    pub(super) fn named_by(
        inspection: &Inspection,
        bytes_max: Option<u64>,
    ) -> Result<Option<Self>, Ending> {
        let Some(bytes_max) = bytes_max else { return Ok(None) };
        let inventory: Inventory = decode("inventory", &inspection.inventory)?;
        let layout = inventory.layout.unwrap_or_default();
        let executables = inventory.executables.into_iter();
        let named = copied::named(&layout, inventory.outline.as_ref(), executables)?;
        match copied::too_much(&named, bytes_max) {
            None => Ok(Some(Self { named, copier: Copier::new(bytes_max) })),
            Some(why) => Err(Ending::Refused(vec![refusal(&why)])),
        }
    }

    /// While the tree runs.
    pub(super) fn copy_ahead(
        &mut self,
        writer: &mut Writer,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let _yielding = Yielding::begin(Half::Upper);
        writer.recognise_files(&self.copier.number(&self.named));
        self.copier.copy_ahead(&self.named, &mut Interruptible(interrupt, writer))
    }

    /// While it stands still, by what it has now.
    pub(super) fn copy_the_rest(
        self,
        layout: &Layout,
        image: &TreeImage,
        sink: &mut dyn PageSink,
    ) -> Result<Copied, Error> {
        let executables = image.processes.iter().filter_map(|process| process.memory.as_ref());
        let executables = executables.map(|memory| memory.executable.clone());
        let named = copied::named(layout, image.descriptors.as_ref(), executables)?;
        self.copier.copy_the_rest(&named, sink)
    }
}
