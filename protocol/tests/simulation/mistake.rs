//! Mistakes that a driver can make around a right machine. The simulation has to notice each.

/// The first three are those that everyone makes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A source that lost the link after the permit takes the tree back.
    ThawsWhenTheLineIsLost,
    /// The destination lets the tree run and writes it down afterwards.
    RunsBeforeItIsWritten,
    /// The source sends the permit and has its surrender only in memory.
    SurrendersWithoutALine,
    /// The agent's death thaws what it had frozen, whatever its journal says.
    QueuesNoStop,
    /// What was sent is not what has arrived.
    ReapsWhenEverythingIsPushed,
    /// Its last reference is closed when the agent dies, and missing pages read as zeros.
    LetsGoOfTheUserfaultfd,
    /// A page that was sent in a round and written since is left as it was.
    KeepsStalePages,
    /// A page comes late and covers what the tree has written meanwhile.
    OverwritesWithLatePages,
    /// The line could not be written, and is taken for written.
    TrustsAFullDisk,
    /// A decision against the tree is told and not written down.
    DiscardsWithoutALine,
    /// What was built and not decided is let run by the kernel when its tracer dies.
    LeavesStubsBehind,
}

impl Mistake {
    pub(crate) const ALL: [Self; 11] = [
        Self::ThawsWhenTheLineIsLost,
        Self::RunsBeforeItIsWritten,
        Self::SurrendersWithoutALine,
        Self::QueuesNoStop,
        Self::ReapsWhenEverythingIsPushed,
        Self::LetsGoOfTheUserfaultfd,
        Self::KeepsStalePages,
        Self::OverwritesWithLatePages,
        Self::TrustsAFullDisk,
        Self::DiscardsWithoutALine,
        Self::LeavesStubsBehind,
    ];
}
