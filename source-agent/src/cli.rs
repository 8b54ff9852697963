//! The command line of `migrate`.

mod rules;

use crate::codec::Compress;
use crate::place::Place;
use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::{Lazy, MigrationId};
pub(crate) use rules::RuleOptions;
use std::path::PathBuf;

/// Move a running process tree to another host
#[derive(Debug, Parser)]
#[command(
    name = "migrate",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 moved; 2 wrong usage; 3 refused, nothing was touched; \
4 failed, it runs here; 5 cancelled, it runs here; 6 in doubt, it stands still here until \
`migrate resume` has asked; 7 it runs on the destination, but pages of it are still missing."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    moving: MoveOptions,
}

impl Cli {
    /// What is to be done.
    pub(crate) fn task(self) -> Option<Task> {
        if let Some(command) = self.command {
            return Some(Task::Command(command));
        }
        let MoveOptions { pid, to, wishes } = self.moving;
        Some(Task::Move(Move { pid: pid?, to: to?, wishes }))
    }
}

#[derive(Debug)]
pub(crate) enum Task {
    Move(Move),
    Command(Command),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what stands against moving a process, or what this host can do; touches nothing
    Check(Check),
    /// Print the fingerprint of this host's key, for known_hosts and authorized_hosts of others
    Fingerprint(Fingerprint),
    /// List the migrations that have a journal here, and how they stand
    List(List),
    /// Take up a migration whose command was killed: ask the destination, and settle it
    Resume(Resume),
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
}

/// A move, with everything that was asked for.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) pid: i32,
    pub(crate) to: Place,
    pub(crate) wishes: MoveWishes,
}

#[derive(Debug, Args)]
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
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// As `migrate list` shows it
    pub(crate) id: MigrationId,
    /// Answer for a destination that cannot be asked: you have made sure that it runs there and
    /// is complete, or that it cannot run there
    #[arg(long, value_enum)]
    pub(crate) vouch: Option<Vouch>,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) state: State,
    #[command(flatten)]
    pub(crate) speed: Speed,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Where this host keeps its key and whom it knows
    #[arg(long, value_name = "DIR", default_value = link::DIRECTORY)]
    pub(crate) config: PathBuf,
    /// One JSON event a line on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct State {
    /// Where journals are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/migrate")]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Speed {
    /// Send pages no faster than this, in megabits a second
    #[arg(long, value_name = "MBIT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bandwidth: Option<u64>,
    /// How pages travel; `auto` compresses where the link is slower than the compressor
    #[arg(long, value_enum, default_value_t = Compress::Auto)]
    pub(crate) compress: Compress,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum When {
    /// When copying ahead cannot make the freeze short enough
    Auto,
    /// Every page
    Always,
    /// No page, however long the freeze
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vouch {
    RunsThere,
    Discarded,
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
        let Some(Task::Move(Move { pid, to, wishes })) = cli.task() else { panic!("no move") };
        assert_eq!((pid, to.port, wishes.max_downtime), (4711, 99, 20));
        assert_eq!(Rules::from(wishes.rules).tcp, Tcp::Close);
        assert_eq!(Lazy::from(wishes.lazy), Lazy::Never);
    }

    #[test]
    fn subcommands_need_no_process() {
        for line in ["check", "check 2 --json --config x", "fingerprint", "list --json"] {
            let task = parse(line).unwrap().task();
            assert!(matches!(task, Some(Task::Command(_))), "{line}");
        }
        let resume = parse("resume 00000000000000000000000000000001 --vouch runs-there").unwrap();
        assert!(
            matches!(resume.command, Some(Command::Resume(r)) if r.vouch == Some(Vouch::RunsThere))
        );
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
            "12 --to hostb check",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
