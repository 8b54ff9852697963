//! The shared memory of a tree, by object.

use super::{Round, Spaces};
use crate::error::Error;
use crate::memory::PageSink;
use crate::memory::backing::{ObjectKey, Origin};
use crate::memory::mapping::Mapping;
use crate::memory::mapping_image::ObjectImage;
use crate::memory::shared::SharedObject;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

#[derive(Debug, Default)]
pub(super) struct Objects(BTreeMap<ObjectKey, Known>);

#[derive(Debug)]
struct Known {
    object: SharedObject,
    origin: Origin,
}

impl Objects {
    /// Opens an object at the first mapping of it that is seen.
    pub(super) fn note(
        &mut self,
        pid: i32,
        mapping: &Mapping,
        key: ObjectKey,
        origin: &Origin,
        spaces: &mut Spaces,
    ) -> Result<(), Error> {
        if let Entry::Vacant(new) = self.0.entry(key) {
            let object = SharedObject::open(pid, mapping, spaces.next())?;
            new.insert(Known { object, origin: origin.clone() });
        }
        Ok(())
    }

    pub(super) fn space(&self, key: ObjectKey) -> Option<u32> {
        self.0.get(&key).map(|known| known.object.space())
    }

    /// Every inode that travels as shared memory, with its space.
    pub(super) fn spaces(&self) -> BTreeMap<(u64, u64), u32> {
        let of =
            |(key, known): (&ObjectKey, &Known)| ((key.device, key.inode), known.object.space());
        self.0.iter().map(of).collect()
    }

    pub(super) fn images(&self) -> Result<Vec<ObjectImage>, Error> {
        self.0
            .values()
            .map(|known| {
                Ok(ObjectImage {
                    space: known.object.space(),
                    size: known.object.size()?,
                    origin: Some((&known.origin).into()),
                })
            })
            .collect()
    }

    pub(super) fn round(&mut self, sink: &mut dyn PageSink) -> Result<Round, Error> {
        let mut all = Round::default();
        for known in self.0.values_mut() {
            let round = known.object.round(sink)?;
            all.data_pages += round.data_pages;
            all.zero_pages += round.zero_pages;
            all.dropped_pages += round.dropped_pages;
        }
        Ok(all)
    }
}
