//! How far the size of a file may differ from what the source saw.
//!
//! On storage that both hosts share, somebody else may write to a file at any time. A descriptor
//! that appends (O_APPEND of open(2)) looks for the end whenever it writes: more than it knows of
//! does not touch it. Every other descriptor has an offset that means a place in the file as it
//! was, so there the sizes must be equal. Before the freeze one more thing is possible: the program
//! itself writes to it, between the source's look and ours. That is told from a copy which is longer
//! by the inode, which shared storage shows alike on every host.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// The size of a file on the source, and what may have changed it since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) inode: u64,
    pub(super) writes: bool,
    pub(super) appends: bool,
}

impl Size {
    /// Why this cannot be the file that a running program has open, as a clause.
    pub(super) fn differs_while_running(self, found: &Metadata) -> Option<String> {
        let is_written_to = self.writes && found.ino() == self.inode;
        let may_grow = self.appends || is_written_to;
        let fits = found.len() == self.bytes || may_grow && found.len() > self.bytes;
        (!fits).then(|| format!("has {} bytes on the destination, not {}", found.len(), self.bytes))
    }

    /// Why this cannot be the file that a program which stands still has open, as a clause.
    pub(super) fn differs_in_the_freeze(self, found: &Metadata) -> Option<String> {
        let (here, there) = (found.len(), self.bytes);
        match here.cmp(&there) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => Some(format!("has {here} bytes here, not {there}")),
            std::cmp::Ordering::Greater if self.appends => None,
            std::cmp::Ordering::Greater => Some(format!(
                "has grown from {there} to {here} bytes since the tree stands still, and was not \
                 opened for appending; let nobody else write to it while the tree is moved"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Judged by a file of four bytes.
    fn verdicts(size: impl Fn(u64) -> Size) -> (bool, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "four").unwrap();
        let found = fs::metadata(&path).unwrap();
        let size = size(found.ino());
        (size.differs_while_running(&found).is_none(), size.differs_in_the_freeze(&found).is_none())
    }

    #[test]
    fn one_that_appends_meets_a_longer_file_and_no_shorter_one() {
        let appends = |bytes| move |_| Size { bytes, inode: 0, writes: true, appends: true };
        assert_eq!(verdicts(appends(3)), (true, true));
        assert_eq!(verdicts(appends(4)), (true, true));
        assert_eq!(verdicts(appends(5)), (false, false));
    }

    #[test]
    fn any_other_meets_one_of_its_size() {
        let reads = |bytes| move |inode| Size { bytes, inode, writes: false, appends: false };
        assert_eq!(verdicts(reads(3)), (false, false));
        assert_eq!(verdicts(reads(4)), (true, true));
        assert_eq!(verdicts(reads(5)), (false, false));
        let copied = |_| Size { bytes: 3, inode: 0, writes: true, appends: false };
        assert_eq!(verdicts(copied), (false, false));
    }

    #[test]
    fn what_the_program_writes_to_the_same_file_is_in_nobodys_way_until_it_stands_still() {
        let writes = |inode| Size { bytes: 3, inode, writes: true, appends: false };
        assert_eq!(verdicts(writes), (true, false));
    }

    #[test]
    fn growth_in_the_freeze_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "four").unwrap();
        let size = Size { bytes: 3, inode: 0, writes: true, appends: false };
        let said = size.differs_in_the_freeze(&fs::metadata(&path).unwrap()).unwrap();
        assert!(said.contains("has grown from 3 to 4 bytes"), "{said}");
        assert!(said.contains("let nobody else write"), "{said}");
    }
}
