//! The command line of `migrate`.

mod images;
mod quick_start;
mod rules;
mod trust;

use crate::codec::Compress;
use crate::place::Place;
use crate::restore::seclusion;
use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use images::{
    Afterwards, Connections, Dump, Duplicate, Hold, Image, ImageStep, Merge, OneImage, Restore,
};
use protocol::{Lazy, MigrationId, Outcome};
pub(crate) use quick_start::{OneService, QuickStart, QuickStartStep};
pub(crate) use rules::RuleOptions;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
#[cfg(test)]
pub(crate) use trust::Config;
pub(crate) use trust::{Ca, CaStep, Identity, IdentityStep, Rotate, Show, Sign, Trust};

/// Move a running process tree to another host
#[derive(Debug, Parser)]
#[command(
    name = "migrate",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 moved; 2 wrong usage; 3 refused, nothing was touched; \
4 failed, it runs here unless it ended by itself; 5 cancelled, it runs here; 6 it stands still \
here, in doubt or because it could not be let go on; 7 it runs on the destination, and pages that \
it lacks or its frozen original are still here. `migrate resume` goes on after 6 and 7. Commands \
that move nothing end with 0 done; 2; 3 refused, or not confirmed: nothing was changed; 4 failed."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    moving: MoveOptions,
}

impl Cli {
    /// What can only be done as long as there is one thread.
    pub(crate) fn seclude(&self) -> Result<(), engine::Error> {
        match &self.command {
            Some(Command::Restore(restore)) if restore.is_first() => {
                seclusion::enter(restore.network_namespace)
            }
            _ => Ok(()),
        }
    }

    /// What is to be done.
    pub(crate) fn task(self) -> Option<Task> {
        if let Some(command) = self.command {
            return Some(Task::Command(command));
        }
        let MoveOptions { pid, to, wishes, agent, detach } = self.moving;
        let moving = Move { pid: pid?, to: to?, wishes };
        Some(Task::Move { moving, agent, detach })
    }
}

#[derive(Debug)]
pub(crate) enum Task {
    Move { moving: Move, agent: Agent, detach: bool },
    Command(Command),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what stands against moving a process, or what this host can do; touches nothing
    Check(Check),
    /// Show, make, certify or rotate this host's key
    Identity(Identity),
    /// Print the fingerprint of this host's key and nothing else; made if there is none
    Fingerprint(Fingerprint),
    /// Get to know a destination: fetch its key, and add it to known_hosts
    Trust(Trust),
    /// Certify the keys of hosts, so that they need not be listed one by one
    Ca(Ca),
    /// List the migrations that have a journal here, and how they stand
    List(List),
    /// Say how a migration stands, or all that are not settled
    Status(Status),
    /// Take up a migration whose command was killed: ask the destination, and settle it
    Resume(Resume),
    /// Answer for a destination that can never be asked again
    Settle(Settle),
    /// Cancel a move that the source agent is at work on
    Cancel(Cancel),
    /// Store a running tree in a directory
    Dump(Dump),
    /// Bring a tree back that was stored in a directory
    Restore(Restore),
    /// Start copies of a running tree, each in a PID namespace of its own
    Clone(Duplicate),
    /// Look at what was stored, verify it, or merge it with its parents
    Image(Image),
    /// Run a slow program as a service that is stored when it stops, and starts from there
    Service(QuickStart),
    #[command(hide = true)]
    Holder(Hold),
}

/// Required, unless there is a subcommand.
#[derive(Debug, Args)]
struct MoveOptions {
    /// The first process of the tree
    #[arg(required = true, value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Where to: HOST[:PORT]
    #[arg(long, required = true, value_name = "HOST[:PORT]")]
    to: Option<Place>,
    #[command(flatten)]
    wishes: MoveWishes,
    #[command(flatten)]
    agent: Agent,
    /// Leave it to the source agent and do not wait for its end
    #[arg(long)]
    detach: bool,
}

/// A move, with everything that was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Move {
    pub(crate) pid: i32,
    #[serde(with = "crate::frames::text")]
    pub(crate) to: Place,
    pub(crate) wishes: MoveWishes,
}

#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub(crate) struct MoveWishes {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    /// How long the tree may stand still, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub(crate) max_downtime: u64,
    /// How many rounds of copying at most, while it runs
    #[arg(long, value_name = "N", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(protocol::limits::ROUNDS_MAX)))]
    pub(crate) max_rounds: u32,
    /// Whether pages may follow after the tree runs on the destination
    #[arg(long, value_enum, default_value_t = When::Auto)]
    pub(crate) lazy: When,
    #[command(flatten)]
    pub(crate) speed: Speed,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
    #[command(flatten)]
    pub(crate) moving: Moving,
}

/// What moves besides the tree.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
pub(crate) struct Moving {
    /// An address of this host that moves with the tree: taken from here in the freeze, and
    /// announced there as soon as the tree's sockets stand. May be given several times
    #[arg(long = "address", value_name = "ADDR/LEN[@DEV]", value_parser = crate::addresses::read)]
    pub(crate) addresses: Vec<String>,
    /// The bridge of the destination that the tree's network namespace is plugged into, instead of
    /// the one of the same name as here; with DEV, only that device of it. May be given several times
    #[arg(long = "bridge", value_name = "[DEV=]NAME", value_parser = crate::addresses::read_bridge)]
    #[serde(default)]
    pub(crate) bridges: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The first process of the tree
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Option<i32>,
    /// Ask this destination too: HOST[:PORT]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) to: Option<Place>,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) rules: RuleOptions,
    #[command(flatten)]
    pub(crate) moving: Moving,
}

#[derive(Debug, Args)]
pub(crate) struct Fingerprint {
    /// Where this host keeps its key and whom it knows
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) state: State,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) agent: Agent,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// As `migrate list` shows it
    pub(crate) id: MigrationId,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) speed: Speed,
    #[command(flatten)]
    pub(crate) agent: Agent,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// As `migrate list` shows it; without one, all that are not settled
    pub(crate) id: Option<MigrationId>,
    #[command(flatten)]
    pub(crate) state: State,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) agent: Agent,
}

#[derive(Debug, Args)]
pub(crate) struct Settle {
    /// As `migrate list` shows it
    pub(crate) id: MigrationId,
    /// You have made sure that it can never run there: it goes on here
    #[arg(long, required_unless_present = "gone")]
    keep_here: bool,
    /// You have made sure that it runs there with all its pages, or you give it up: what is left
    /// of it here is ended
    #[arg(long, conflicts_with = "keep_here")]
    gone: bool,
    /// Do not ask for a confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) agent: Agent,
}

impl Settle {
    pub(crate) fn answer(&self) -> Answer {
        if self.gone { Answer::Gone } else { Answer::KeepHere }
    }
}

/// Of an operator, for a destination that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    KeepHere,
    Gone,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::KeepHere => Self::Discarded,
            Answer::Gone => Self::Running,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// As `migrate list` shows it
    pub(crate) id: MigrationId,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) agent: Agent,
}

#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Common {
    /// Where this host keeps its key and whom it knows
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
    /// One JSON event a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub(crate) struct State {
    /// Where journals are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/migrate")]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Agent {
    /// The control socket of the source agent. One that is there and keeps its journals in the
    /// same place does the work; else it is done here
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
}

pub(crate) const SOCKET: &str = "/run/migrate/source-agent.sock";

/// `source-agent`: moves trees for `migrate`, and settles by itself what was left open.
#[derive(Debug, Parser)]
#[command(
    name = "source-agent",
    version,
    about = "Move process trees for `migrate`, and settle what was left open"
)]
pub(crate) struct Service {
    /// Where to listen for `migrate`; only root may ask
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub(crate) socket: PathBuf,
    /// Where this host keeps its key and whom it knows
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Speed {
    /// Send pages no faster than this, in megabits a second
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bandwidth: Option<u64>,
    /// How pages travel; `auto` compresses where the link is slower than the compressor
    #[arg(long, value_enum, default_value_t = Compress::Auto)]
    pub(crate) compress: Compress,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize, Deserialize)]
pub(crate) enum When {
    /// When copying ahead cannot make the freeze short enough
    Auto,
    /// Every page
    Always,
    /// No page, however long the freeze
    Never,
}

impl From<When> for Lazy {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use engine::kinds::{Rules, Tcp};

    const ID: &str = "00000000000000000000000000000001";

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["migrate"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_process_and_a_host_are_a_move() {
        let cli = parse("4711 --to hostb:99 --tcp close --lazy never").unwrap();
        let Some(Task::Move { moving, agent, detach }) = cli.task() else { panic!("no move") };
        let Move { pid, to, wishes } = moving;
        assert_eq!((agent.socket.to_str(), detach), (Some(SOCKET), false));
        assert_eq!((pid, to.port, wishes.max_downtime), (4711, 99, 20));
        assert_eq!(Rules::from(wishes.rules).tcp, Tcp::Close);
        assert_eq!(Lazy::from(wishes.lazy), Lazy::Never);
    }

    #[test]
    fn subcommands_need_no_process() {
        for line in [
            "check",
            "check 2 --json --config x",
            "fingerprint",
            "list --json",
            "status",
            "identity",
            "identity --json",
            "identity --public --next",
            "identity create --config x",
            "identity rotate --finish",
            "identity certify -",
            "trust hostb:99",
            "trust --replace b",
            "trust --list --json",
            "trust --remove hostb",
            "ca create --name fleet",
            "ca show",
            "ca sign - --name a --name b --valid 90d --serial 7 --for source",
        ] {
            let task = parse(line).unwrap().task();
            assert!(matches!(task, Some(Task::Command(_))), "{line}");
        }
        let settle = |line: &str| match parse(&format!("settle {ID} {line}")).unwrap().command {
            Some(Command::Settle(settle)) => settle.answer(),
            other => panic!("{other:?}"),
        };
        assert_eq!(settle("--keep-here"), Answer::KeepHere);
        assert_eq!(settle("--gone --yes"), Answer::Gone);
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for line in [
            "",
            "12",
            "twelve --to hostb",
            "0 --to hostb",
            "-4 --to hostb",
            "12 --to hostb --lazy so",
            "12 --to hostb --max-rounds 0",
            "12 --to hostb --bandwidth 0",
            "12 --to :1",
            "--to hostb",
            "resume xyz",
            &format!("settle {ID}"),
            &format!("settle {ID} --gone --keep-here"),
            "12 --to hostb check",
            "trust",
            "trust hostb --list",
            "trust hostb --remove --replace",
            "trust hostb --fingerprint MD5:00",
            "trust hostb --json",
            "identity --next",
            "identity --json create",
            "ca",
            "ca sign key.pub --name a",
            "ca sign key.pub --valid 1d",
            "ca sign key.pub --name a --valid 0d",
            "ca sign key.pub --name a --valid 1d --serial -1",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
