//! Files of an image that are put in for its tree.

use crate::cli::Restore;
use crate::inspection::refusal;
use engine::Error;
use engine::image::StoredImage;
use engine::image::copied::{self, PutIn};
use protocol::Refusal;

/// If that is asked for; and those that stand against it.
pub(super) fn put_in(
    image: &StoredImage,
    restore: &Restore,
) -> Result<(PutIn, Vec<Refusal>), Error> {
    if !restore.copy_files {
        return Ok((PutIn::default(), Vec::new()));
    }
    let (put_in, refusals) = copied::put_in(image)?;
    Ok((put_in, refusals.iter().map(refusal).collect()))
}

/// The tree runs, and may need them.
pub(super) fn keep(put_in: PutIn) -> Option<String> {
    let files = put_in.files();
    put_in.keep();
    match files {
        0 => None,
        1 => Some("1 file was put in that was missing here.".to_owned()),
        _ => Some(format!("{files} files were put in that were missing here.")),
    }
}
