//! Whether the disk has room for an image.

use super::stop::{Stop, failed};
use nix::sys::statvfs::statvfs;
use protocol::Refusal;
use std::io;
use std::path::Path;

/// What an image must leave free for others: the journal is there too.
const RESERVE_BYTES: u64 = 64 << 20;

pub(super) fn look(directory: &Path, wanted_bytes: u64) -> Result<(), Stop> {
    let about = statvfs(directory);
    let about = about.map_err(|error| failed("look for room for", &io::Error::from(error)))?;
    let free_bytes = about.blocks_available().saturating_mul(about.fragment_size());
    against(directory, wanted_bytes, free_bytes)
        .map_or(Ok(()), |found| Err(Stop::Refused(vec![found])))
}

fn against(directory: &Path, wanted_bytes: u64, free_bytes: u64) -> Option<Refusal> {
    let free_bytes = free_bytes.saturating_sub(RESERVE_BYTES);
    (wanted_bytes > free_bytes).then(|| {
        let (wanted, free) = (wanted_bytes.div_ceil(1 << 20), free_bytes >> 20);
        let reason = format!(
            "has {free} MiB to give in {}, and the image of the tree needs {wanted} MiB",
            directory.display()
        );
        Refusal::new(
            "the disk of the destination",
            reason,
            "Make room there, or choose another host.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_leaves_room_for_others() {
        let place = Path::new("/x");
        assert_eq!(against(place, 1 << 20, (1 << 20) + RESERVE_BYTES), None);
        let refusal = against(place, (1 << 20) + 1, (1 << 20) + RESERVE_BYTES).unwrap();
        assert!(refusal.reason.contains("has 1 MiB to give in /x"), "{refusal}");
        assert!(refusal.reason.contains("needs 2 MiB"), "{refusal}");
        assert!(against(place, 1, 0).is_some());
    }
}
