//! A directory that a process stands in, told by its path.

use super::Subject;
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A Refusal if the path that procfs tells does not lead to the directory: it was deleted, is
/// hidden under a mount, or lies outside our root. (" (deleted)" at the end of the path is no
/// proof: a directory may be called that.)
pub(super) fn lost(subject: &Subject<'_>, link: &str, name: &'static str) -> Vec<Refusal> {
    let Ok(path) = subject.link(link) else {
        return Vec::new(); // The process is gone, which is told by who looks for it.
    };
    let reason = match leads_to(&path, subject.path(link)) {
        Ok(true) => return Vec::new(),
        Ok(false) => "does not lead to it any more".to_owned(),
        Err(error) => format!("cannot be followed ({error})"),
    };
    vec![Refusal {
        object: subject.process(),
        reason: format!("has a {name} whose path {} {reason}", String::from_utf8_lossy(&path)),
        advice: format!("Have it change its {name} to one that exists on both hosts."),
    }]
}

fn leads_to(path: &[u8], link: String) -> io::Result<bool> {
    let here = std::fs::metadata(link)?;
    match std::fs::metadata(Path::new(OsStr::from_bytes(path))) {
        Ok(there) => Ok((here.dev(), here.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a path in an image must be before it becomes the argument of a call.
pub(super) fn check(path: &[u8], object: &Object) -> Result<(), Error> {
    if path.first() == Some(&b'/') && !path.contains(&0) {
        return Ok(());
    }
    let path = String::from_utf8_lossy(path).into_owned();
    Err(Error::invalid("enter", object.clone(), format!("{path:?} is not an absolute path")))
}
