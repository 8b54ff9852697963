//! What may happen in a run.

use protocol::Lazy;

/// Something that goes wrong, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    Cut,
    SourceDies,
    DestinationDies,
    BothDie,
    /// A clock jumps, so a wait is over early.
    SourceTimesOut,
    DestinationTimesOut,
    SourceDiskIsSlow,
    DestinationDiskIsSlow,
    SourceDiskFills,
    DestinationDiskFills,
    DisksHaveRoom,
    SourceActionFails,
    DestinationActionFails,
    Cancelled,
    SourceReboots,
    DestinationReboots,
}

impl Mishap {
    pub(crate) const ALL: [Self; 16] = [
        Self::Cut,
        Self::SourceDies,
        Self::DestinationDies,
        Self::BothDie,
        Self::SourceTimesOut,
        Self::DestinationTimesOut,
        Self::SourceDiskIsSlow,
        Self::DestinationDiskIsSlow,
        Self::SourceDiskFills,
        Self::DestinationDiskFills,
        Self::DisksHaveRoom,
        Self::SourceActionFails,
        Self::DestinationActionFails,
        Self::Cancelled,
        Self::SourceReboots,
        Self::DestinationReboots,
    ];

    pub(crate) fn is_reboot(self) -> bool {
        matches!(self, Self::SourceReboots | Self::DestinationReboots)
    }
}

/// When trouble begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Never,
    /// Once, in this step.
    Once(u64, Mishap),
    /// At any time.
    Sometime {
        reboots: bool,
    },
    /// When the tree runs on the destination, with most of its pages still on the source.
    WhenItRuns {
        reboots: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    pub(crate) trouble: Trouble,
    /// `None` leaves it to the seed.
    pub(crate) lazy: Option<Lazy>,
}

impl Story {
    pub(crate) const CALM: Self = Self { trouble: Trouble::Never, lazy: None };
    pub(crate) const FAULTS: Self =
        Self { trouble: Trouble::Sometime { reboots: false }, lazy: None };
    pub(crate) const REBOOTS: Self =
        Self { trouble: Trouble::Sometime { reboots: true }, lazy: None };
    pub(crate) const LAZY: Self =
        Self { trouble: Trouble::WhenItRuns { reboots: false }, lazy: Some(Lazy::Always) };
    pub(crate) const LAZY_REBOOTS: Self =
        Self { trouble: Trouble::WhenItRuns { reboots: true }, lazy: Some(Lazy::Always) };

    pub(crate) fn once(step: u64, mishap: Mishap) -> Self {
        Self { trouble: Trouble::Once(step, mishap), lazy: Some(Lazy::Always) }
    }

    pub(crate) fn may_reboot(self) -> bool {
        match self.trouble {
            Trouble::Never => false,
            Trouble::Once(_, mishap) => mishap.is_reboot(),
            Trouble::Sometime { reboots } | Trouble::WhenItRuns { reboots } => reboots,
        }
    }
}
