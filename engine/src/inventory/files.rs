//! Whether the files that the tree maps and executes are here, and are the same.

use crate::error::Object;
use crate::image::Layout;
use crate::memory::file_identity::FileIdentity;
use crate::memory::mapping_image::{BackingImage, FileImage};
use crate::refusal::Refusal;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub(super) fn lacking(layout: &Layout, executables: &[String]) -> Vec<Refusal> {
    let mut files: BTreeMap<(&[u8], bool), &FileImage> = BTreeMap::new();
    for mapping in layout.processes.iter().flat_map(|process| &process.mappings) {
        if let Some(BackingImage::File(file)) = &mapping.backing {
            let is_code = is_identified_as_code(&file.identity);
            files.insert((&file.path, is_code), file);
        }
    }
    let missing = executables.iter().filter(|path| !Path::new(path).exists());
    let missing = missing.map(|path| refusal(path, "does not exist on the destination"));
    let mut refusals: Vec<Refusal> =
        files.into_values().filter_map(differs).chain(missing).collect();
    refusals.dedup_by(|a, b| a.object == b.object);
    refusals
}

fn is_identified_as_code(identity: &FileIdentity) -> bool {
    !identity.build_id.is_empty() || !identity.blake3.is_empty()
}

fn differs(wanted: &FileImage) -> Option<Refusal> {
    let path = Path::new(OsStr::from_bytes(&wanted.path));
    let shown = path.display().to_string();
    let Ok(file) = File::open(path) else {
        return Some(refusal(&shown, "does not exist on the destination"));
    };
    let is_code = is_identified_as_code(&wanted.identity);
    match FileIdentity::of(&file, is_code, || Object::File { path: shown.clone() }) {
        Err(error) => Some(refusal(&shown, &format!("cannot be read here: {}", error.source))),
        Ok(here) => wanted.identity.difference(&here).map(|why| refusal(&shown, &why)),
    }
}

fn refusal(path: &str, reason: &str) -> Refusal {
    Refusal {
        object: Object::File { path: path.to_owned() },
        reason: reason.to_owned(),
        advice: "Install the same version of it on both hosts.".to_owned(),
    }
}
