//! A directory that a process stands in, told by its path.

use super::Subject;
use crate::args;
use crate::batch::Batch;
use crate::error::{Error, Object, OnObject as _};
use crate::paths;
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

/// Makes the thread stand in the directory that a path in an image leads to; no magic link is
/// followed on the way, see [`crate::paths`].
pub(super) fn enter(path: &[u8], object: &Object, batch: &mut Batch) -> Result<(), Error> {
    paths::check(path).on("enter", || object.clone())?;
    let path = batch.string(path);
    // `struct open_how` of openat2(2): flags, mode, resolve.
    let flags = u64::from((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).cast_unsigned());
    let how = [flags, 0, libc::RESOLVE_NO_MAGICLINKS];
    let how = batch.bytes(&how.map(u64::to_ne_bytes).concat());
    let args = args![libc::AT_FDCWD, path, how, how.length];
    let fd = batch.call("enter", object, libc::SYS_openat2, args);
    batch.call("enter", object, libc::SYS_fchdir, args![fd]);
    batch.call("close our descriptor of", object, libc::SYS_close, args![fd]);
    Ok(())
}
