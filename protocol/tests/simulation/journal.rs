//! A host's journal, and the disk that it is on.

use crate::random::Random;

/// How the disk takes the next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    Good,
    /// The next line is not written before everybody else has done what he can, and somebody has
    /// waited in vain.
    Slow,
    /// Every line fails.
    Full,
}

/// What came of writing a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Fine,
    Failed,
    /// The agent died of it.
    Died,
}

#[derive(Debug)]
pub(crate) struct Journal<E> {
    lines: Vec<(E, u32)>,
    synced: usize,
    pub(crate) disk: Disk,
}

impl<E: Clone> Journal<E> {
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), synced: 0, disk: Disk::Good }
    }

    pub(crate) fn last(&self) -> Option<&E> {
        self.lines.last().map(|(entry, _)| entry)
    }

    /// The boot in which the last line was written.
    pub(crate) fn boot(&self) -> Option<u32> {
        self.lines.last().map(|(_, boot)| *boot)
    }

    /// A line may be in the journal although writing it failed, or although the agent then died.
    /// `lands` is told whether it is.
    pub(crate) fn write(
        &mut self,
        (entry, boot): (E, u32),
        trouble: bool,
        random: &mut Random,
    ) -> (Written, bool) {
        if self.disk == Disk::Full {
            return (Written::Failed, false);
        }
        let lands = !trouble || random.below(2) == 0;
        if lands {
            self.lines.push((entry, boot));
        }
        let came = match (trouble, random.below(2)) {
            (false, _) => Written::Fine,
            (true, 0) => Written::Failed,
            (true, _) => Written::Died,
        };
        (came, lands)
    }

    /// True if that changed anything.
    pub(crate) fn catches_up(&mut self) -> bool {
        let was_slow = self.disk == Disk::Slow;
        if was_slow {
            self.disk = Disk::Good;
        }
        was_slow
    }

    pub(crate) fn sync(&mut self) {
        self.synced = self.lines.len();
    }

    /// The kernel is gone, and with it some of the lines that it had not written out.
    pub(crate) fn lose_what_was_not_synced(&mut self, random: &mut Random) {
        let kept = self.synced + random.index(self.lines.len() - self.synced + 1);
        self.lines.truncate(kept);
        self.synced = kept;
    }
}
