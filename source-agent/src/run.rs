//! `migrate` from the command line to its exit code.

use crate::bulk::Moved;
use crate::cli::{Cli, Command, Move, MoveWishes, Task};
use crate::connection::{Line, Peer};
use crate::ending::Ending;
use crate::engine_thread::{EngineThread, Tree, Workplace};
use crate::inspection::{self, Looked};
use crate::journal::{Header, Journal};
use crate::news::{self, Inbox, News, Post};
use crate::output::{Output, print};
use crate::page_streams::Wishes;
use crate::report::Report;
use crate::session::{Course, Session};
use crate::{check, hello, list, resume};
use anyhow::{Context as _, Result};
use clap::Parser as _;
use engine::kinds::Rules;
use protocol::convergence::Goal;
use protocol::source::{Inspection, Plan, State};
use protocol::{MigrationId, Outbox};
use std::fs::File;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// One for the session, and some for the link's encryption.
const WORKERS: usize = 4;

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let ended = runtime.context("start the runtime").and_then(|runtime| {
        let ended = runtime.block_on(dispatch(cli));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::from(4)
    })
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.task().context("there is nothing to do")? {
        Task::Move(moving) => Ok(run(Attempt { moving, only_check: false }).await),
        Task::Command(Command::Check(check)) => check::run(check).await,
        Task::Command(Command::Fingerprint(fingerprint)) => {
            let identity = link::Identity::load_or_create(&fingerprint.config)?;
            print(&identity.fingerprint().to_string());
            Ok(ExitCode::SUCCESS)
        }
        Task::Command(Command::List(list)) => list::run(&list),
        Task::Command(Command::Resume(resume)) => resume::run(resume).await,
    }
}

/// One attempt to move a tree, or to find out whether it could be moved.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) moving: Move,
    pub(crate) only_check: bool,
}

/// Ends with the exit code; what went wrong was told.
pub(crate) async fn run(attempt: Attempt) -> ExitCode {
    let report = Report::new(Output::new(attempt.moving.wishes.common.json));
    let host = attempt.moving.to.host.clone();
    match prepare(attempt, report).await {
        Ok((session, state, out)) => session.run(state, out).await.code(),
        Err((report, ending)) => {
            report.ends(&ending, &host);
            ending.code()
        }
    }
}

type Prepared = (Session, State, Outbox<protocol::source::Action>);
type Unprepared = (Report, Ending);

/// Looks at the tree first: what this host alone knows to be in the way needs no connection.
async fn prepare(attempt: Attempt, report: Report) -> Result<Prepared, Unprepared> {
    let rules = attempt.moving.wishes.rules.into();
    let inspection = match look(attempt.moving.pid, rules, &report).await {
        Ok(inspection) => inspection,
        Err(ending) => return Err((report, ending)),
    };
    let (post, inbox) = news::queue();
    match connect(&attempt, rules, inspection, (post, inbox)).await {
        Ok((parts, state, out)) => Ok((parts.with(report), state, out)),
        Err(ending) => Err((report, ending)),
    }
}

async fn look(pid: i32, rules: Rules, report: &Report) -> Result<Inspection, Ending> {
    let looked = tokio::task::spawn_blocking(move || inspection::look(pid, rules)).await;
    let looked = looked.map_err(|error| Ending::failed(&error))?;
    let Looked { outcome, notes } = looked.map_err(|error| Ending::failed(&error))?;
    notes.iter().for_each(|note| report.note(&note.to_string()));
    let inspection = outcome.map_err(Ending::Refused)?;
    report.expects(inspection.memory_bytes);
    Ok(inspection)
}

/// A session but for its report.
struct Parts {
    id: MigrationId,
    peer: Peer,
    line: Line,
    engine: EngineThread,
    inbox: Inbox,
    post: Post,
    moved: Moved,
}

impl Parts {
    fn with(self, report: Report) -> Session {
        let Self { id, peer, line, engine, inbox, post, moved } = self;
        let course = Course::new(line.number);
        let (line, vouched) = (Some(line), None);
        Session { id, peer, line, engine, inbox, post, moved, report, vouched, course }
    }
}

async fn connect(
    attempt: &Attempt,
    rules: Rules,
    inspection: Inspection,
    (post, mut inbox): (Post, Inbox),
) -> Result<(Parts, State, Outbox<protocol::source::Action>), Ending> {
    let Move { pid, to, wishes } = &attempt.moving;
    let MoveWishes { common, state, speed, .. } = wishes;
    watch_signals(post.clone()).map_err(|error| Ending::failed(&error))?;
    let id = new_id().map_err(|error| Ending::failed(&error))?;
    let peer = Peer::new(to.clone(), &common.config).map_err(|error| Ending::failed(&error))?;
    let hello = tokio::task::spawn_blocking(hello::of_this_host).await;
    let hello = hello.map_err(|error| Ending::failed(&error))?;
    let hello = hello.map_err(|error| Ending::failed(&error))?;
    // Nothing was touched: a dial that the operator does not want to wait for is just dropped.
    let connection = tokio::select! {
        connection = peer.dial() => connection.map_err(|error| Ending::failed(&error))?,
        _ = inbox.recv() => return Err(Ending::Cancelled),
    };
    let plan = plan(attempt, id, &inspection, connection.rtt());
    let moved = Moved::default();
    let line = Line::open(connection, id, 1, post.clone(), moved.clone()).await;
    let line = line.map_err(|error| Ending::failed(&error))?;
    let (root, destination) = (*pid, to.to_string());
    let header = Header { root, destination, boot_id: hello.host.boot_id.clone() };
    let journal = (!attempt.only_check).then(|| Journal::create(&state.state, id, header));
    let journal = journal.transpose().map_err(|error| Ending::failed(&error))?;
    let wishes = Wishes { bandwidth_megabit: speed.bandwidth, compress: speed.compress };
    let tree = Tree::Untouched(rules, inspection);
    let workplace = Workplace { root, journal, wishes, post: post.clone(), tree };
    let engine = EngineThread::start(workplace).map_err(|error| Ending::failed(&error))?;
    let mut out = Outbox::new();
    let state = State::start(plan, hello, &mut out);
    Ok((Parts { id, peer, line, engine, inbox, post, moved }, state, out))
}

fn plan(attempt: &Attempt, id: MigrationId, found: &Inspection, rtt: Duration) -> Plan {
    let moving = &attempt.moving.wishes;
    let goal = Goal {
        downtime_ns_max: moving.max_downtime.saturating_mul(1_000_000),
        rounds_max: moving.max_rounds,
        lazy: moving.lazy.into(),
        fixed_ns: fixed_ns(found, rtt),
    };
    let compress = moving.speed.compress != crate::codec::Compress::None;
    Plan { id, goal, compress, only_check: attempt.only_check }
}

/// What a freeze costs without a page: measured for one process; each thread adds its registers
/// and its own rebuilding; image and handover each cross the wire and are answered.
fn fixed_ns(found: &Inspection, rtt: Duration) -> u64 {
    const ALONE_NS: u64 = 4_000_000;
    const PROCESS_NS: u64 = 500_000;
    const THREAD_NS: u64 = 20_000;
    let round_trips = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2);
    let tree =
        PROCESS_NS * u64::from(found.process_count) + THREAD_NS * u64::from(found.thread_count);
    ALONE_NS.saturating_add(tree).saturating_add(round_trips)
}

/// Random, as the system's own generator gives it; see random(4).
pub(crate) fn new_id() -> io::Result<MigrationId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    MigrationId::from_bytes(bytes).ok_or_else(|| io::Error::other("the random device gives zeros"))
}

/// A closed terminal is an operator who has gone, and is treated as one who cancels.
pub(crate) fn watch_signals(post: Post) -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signal, post) = (signal(kind)?, post.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if post.send(News::Stop).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
