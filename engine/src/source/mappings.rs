//! From a mapping as it is seen to one as it travels.

use super::objects::Objects;
use crate::error::{Error, OnObject as _};
use crate::memory::backing::MappingKind;
use crate::memory::file_identity::FileIdentity;
use crate::memory::mapping::Mapping;
use crate::memory::mapping_image::{BackingImage, MappingImage};
use std::collections::HashMap;
use std::fs::File;

/// What was found out about mapped files. Hashing one is for once, and never for the freeze.
#[derive(Debug, Default)]
pub(super) struct Identities(HashMap<(u64, u64, bool), FileIdentity>);

impl Identities {
    fn of(&mut self, pid: i32, mapping: &Mapping) -> Result<FileIdentity, Error> {
        let is_executed = mapping.protection.execute;
        let key = (mapping.device, mapping.inode, is_executed);
        if let Some(known) = self.0.get(&key) {
            return Ok(known.clone());
        }
        let file = File::open(mapping.link(pid)).on("open", || mapping.object(pid))?;
        let identity = FileIdentity::of(&file, is_executed, || mapping.object(pid))?;
        self.0.insert(key, identity.clone());
        Ok(identity)
    }
}

pub(super) fn image(
    pid: i32,
    mapping: &Mapping,
    kind: &MappingKind,
    identities: &mut Identities,
    objects: &Objects,
) -> Result<MappingImage, Error> {
    let backing = match kind {
        MappingKind::File { .. } => BackingImage::file(mapping, identities.of(pid, mapping)?),
        MappingKind::Object { key, .. } => {
            let space = objects.space(*key).expect("noted when the mapping was seen");
            BackingImage::object(space)
        }
        MappingKind::Unmovable(unmovable) => {
            return Err(Error::invalid("move", mapping.object(pid), unmovable.reason.clone()));
        }
        MappingKind::Anonymous | MappingKind::Special(_) => {
            BackingImage::plain(mapping, kind).expect("nothing to be looked up")
        }
    };
    Ok(MappingImage::of(mapping, backing))
}
