//! The commands that store a tree in a directory and bring it back.

use super::{Common, RuleOptions, State};
use crate::codec::Compress;
use crate::place::Place;
use clap::{Args, ValueEnum};
use engine::image::{Identities, Recipients};
use protocol::limits::COPIES_MAX;
use std::path::{Path, PathBuf};

const DOWNTIME_MS: u64 = 20;
const BUFFER_MIB: u64 = 256;
const COPY_FILES_MIB: u64 = 1024;

#[derive(Debug, Args)]
pub(crate) struct Dump {
    /// The directory of the image: made if it is not there, else it must be empty
    #[arg(short = 'D', long = "images-dir", value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The first process of the tree
    #[arg(short = 't', long = "tree", value_name = "PID",
        value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// It goes on running afterwards; without this it is ended
    #[arg(long, conflicts_with = "leave_stopped")]
    leave_running: bool,
    /// It stands still afterwards, as after SIGSTOP
    #[arg(long)]
    leave_stopped: bool,
    /// How many rounds of copying at most, while it runs
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) pre_dump: u32,
    /// How long it may stand still, in milliseconds: rounds end when that can be kept
    #[arg(long, value_name = "MS", default_value_t = DOWNTIME_MS)]
    pub(crate) max_downtime: u64,
    /// How much of its memory is kept in ours while it stands still, in MiB; what is more goes to
    /// the disk at once
    #[arg(long, value_name = "MIB", default_value_t = BUFFER_MIB)]
    pub(crate) buffer: u64,
    /// An image of the same tree: only what has changed since is stored
    #[arg(long, value_name = "DIR")]
    pub(crate) parent: Option<PathBuf>,
    /// Store the regular files as well that it has open or mapped, programs and libraries too
    #[arg(long)]
    pub(crate) copy_files: bool,
    /// How much they may have together, in MiB; holes do not count
    #[arg(long, value_name = "MIB", default_value_t = COPY_FILES_MIB, requires = "copy_files")]
    copy_files_max: u64,
    /// How pages are stored; `auto` compresses those that become smaller by it
    #[arg(long, value_enum, default_value_t = Compress::Auto)]
    pub(crate) compress: Compress,
    #[command(flatten)]
    pub(crate) seal: Seal,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// One JSON event a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
}

/// What becomes of a tree that was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Ends,
    Runs,
    StandsStill,
}

impl Dump {
    /// Of a tree that is cloned: what copies are made of lives shortly, and is read at once.
    pub(crate) fn of_original(duplicate: &Duplicate, directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            pid: duplicate.pid,
            leave_running: true,
            leave_stopped: false,
            pre_dump: duplicate.pre_dump,
            max_downtime: DOWNTIME_MS,
            buffer: BUFFER_MIB,
            parent: None,
            copy_files: false,
            copy_files_max: COPY_FILES_MIB,
            // On the way to another host, what is smaller is faster.
            compress: if duplicate.to.is_some() { Compress::Auto } else { Compress::None },
            seal: Seal::default(),
            opening: Opening::default(),
            json: duplicate.common.json,
            rules: duplicate.rules,
        }
    }

    /// Bytes of files that are copied at most, if any are.
    pub(crate) fn file_bytes_max(&self) -> Option<u64> {
        self.copy_files.then(|| self.copy_files_max.saturating_mul(1 << 20))
    }

    pub(crate) fn afterwards(&self) -> Afterwards {
        match (self.leave_running, self.leave_stopped) {
            (true, _) => Afterwards::Runs,
            (_, true) => Afterwards::StandsStill,
            _ => Afterwards::Ends,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Restore {
    /// The directory of the image
    #[arg(short = 'D', long = "images-dir", value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Do not wait for the tree's end
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// Let it run before its memory was read: pages come when they are touched, and the rest
    /// meanwhile
    #[arg(long)]
    pub(crate) lazy: bool,
    /// TCP connections: they go on, for which their addresses have to be on this host, or the program
    /// finds them reset; with `reset` their peers do so as well, where their addresses are here
    #[arg(long, value_enum, default_value_t = Connections::Established)]
    pub(crate) tcp: Connections,
    /// Put the files in that the image has and that are missing here; none that is here is changed
    #[arg(long)]
    pub(crate) copy_files: bool,
    /// Restore it in a PID namespace of its own, for ids that are taken here
    #[arg(long)]
    pub(crate) pid_namespace: bool,
    /// With that, also in a network namespace of its own that has nothing but its loopback
    #[arg(long, requires = "pid_namespace")]
    pub(crate) network_namespace: bool,
    /// Write the id of its first process there, as this host has it
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// One JSON event a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: State,
    /// Started by another `migrate`, to which it says on standard output when the tree runs
    #[arg(long, hide = true)]
    pub(crate) is_for_another: bool,
    /// Started by the keeper of a service: ids up to this one are not for what the tree starts
    #[arg(long, hide = true, value_name = "PID")]
    pub(crate) spare_ids: Option<i32>,
    /// It came from another host: nothing of it is looked for anywhere else
    #[arg(skip)]
    pub(crate) stands_alone: bool,
}

/// What becomes of the TCP connections of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Connections {
    Established,
    Close,
    /// As `Close`, and the peers are told.
    Reset,
}

impl Connections {
    /// As the option has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Close => "close",
            Self::Reset => "reset",
        }
    }
}

impl Restore {
    pub(crate) fn of_clone(duplicate: &Duplicate, directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            detach: true,
            opening: Opening::default(),
            lazy: true,
            copy_files: false,
            pid_namespace: true,
            network_namespace: duplicate.network_namespace,
            tcp: Connections::Close,
            pidfile: None,
            json: duplicate.common.json,
            state: duplicate.state.clone(),
            is_for_another: false,
            spare_ids: None,
            stands_alone: false,
        }
    }

    /// Of a copy whose image came from another host. We are the first of its PID namespace.
    pub(crate) fn of_stranger(directory: PathBuf, state: PathBuf) -> Self {
        Self {
            directory,
            detach: true,
            opening: Opening::default(),
            lazy: true,
            copy_files: false,
            pid_namespace: true,
            network_namespace: false,
            tcp: Connections::Close,
            pidfile: None,
            json: true,
            state: State { state },
            is_for_another: true,
            spare_ids: None,
            stands_alone: true,
        }
    }

    /// Whether it is the first process of a new PID namespace.
    pub(crate) fn is_first(&self) -> bool {
        self.pid_namespace && self.is_for_another
    }

    /// Whether it ends when the tree does: for its operator, or as the first of a PID namespace.
    pub(crate) fn stays(&self) -> bool {
        !self.detach || self.pid_namespace
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Duplicate {
    /// The first process of the tree, which goes on running
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// Start the copies on another host, whose `dest-agent` takes them in: HOST[:PORT]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) to: Option<Place>,
    /// How many copies
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(COPIES_MAX)))]
    pub(crate) count: u32,
    /// Each copy in a network namespace of its own, which has nothing but its loopback
    #[arg(long)]
    pub(crate) network_namespace: bool,
    /// How many rounds of copying at most, while it runs
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) pre_dump: u32,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
}

/// For whom an image is encrypted.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Seal {
    /// Encrypt it, so that only that key reads it again: a recipient of age (age1…), or a file that
    /// has one a line. May be given several times
    #[arg(long = "encrypt-to", value_name = "RECIPIENT")]
    encrypt_to: Vec<String>,
}

impl Seal {
    pub(crate) fn recipients(&self) -> Result<Recipients, engine::Error> {
        Recipients::read(&self.encrypt_to)
    }
}

/// What opens an encrypted image.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Opening {
    /// A file with identities of age, one a line, for an encrypted image and its parents. May be
    /// given several times
    #[arg(long = "identity", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

impl Opening {
    pub(crate) fn identities(&self) -> Result<Identities, engine::Error> {
        Identities::read(&self.files)
    }
}

/// Of an image that is there.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) step: ImageStep,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageStep {
    /// When and where it was made, and how large it is
    Info(OneImage),
    /// Its processes, mappings, descriptors and sockets
    Show(OneImage),
    /// Read all of it, with its parents, and hold it against its checksums
    Verify(OneImage),
    /// Write an image that needs no parent
    Merge(Merge),
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The directory of the image, whose parents are there
    pub(crate) directory: PathBuf,
    /// The directory of the new one: made if it is not there, else it must be empty
    pub(crate) into: PathBuf,
    /// How pages are stored
    #[arg(long, value_enum, default_value_t = Compress::Auto)]
    pub(crate) compress: Compress,
    #[command(flatten)]
    pub(crate) seal: Seal,
    /// The image is encrypted, and the new one is not to be
    #[arg(long, conflicts_with = "encrypt_to")]
    pub(crate) decrypt: bool,
    #[command(flatten)]
    pub(crate) opening: Opening,
}

#[derive(Debug, Args)]
pub(crate) struct OneImage {
    /// The directory of the image
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Keeps the memory of a tree from reading zeros when whoever restores it dies.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    #[arg(long)]
    pub(crate) socket: PathBuf,
}
