//! One attempt to move a tree, or to find out whether it could be moved, up to the first word.

use crate::bulk::Moved;
use crate::cli::Move;
use crate::codec::Compress;
use crate::connection::{Line, Peer};
use crate::ending::Ending;
use crate::engine_thread::{EngineThread, Tree, Workplace};
use crate::hello;
use crate::inspection::{self, Looked};
use crate::journal::{Header, Journal};
use crate::news::{self, Inbox, Post};
use crate::output::Output;
use crate::page_streams::Wishes;
use crate::report::Report;
use crate::run::watch_signals;
use crate::session::{Course, Session};
use engine::kinds::Rules;
use protocol::convergence::Goal;
use protocol::source::{Action, Inspection, Plan, State};
use protocol::version::Hello;
use protocol::{MigrationId, Outbox};
use std::fs::File;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::spawn_blocking;

#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) moving: Move,
    pub(crate) only_check: bool,
}

impl Attempt {
    /// Ends with the exit code; what went wrong was told.
    pub(crate) async fn run(self) -> ExitCode {
        let report = Report::new(Output::new(self.moving.wishes.common.json));
        match self.begin(&report).await {
            Ok((begun, state, out)) => begun.with(report).run(state, out).await.code(),
            Err(ending) => {
                report.ends(&ending, &self.moving.to.host);
                ending.code()
            }
        }
    }

    /// Looks at the tree first: what this host alone knows to be in the way needs no connection.
    async fn begin(&self, report: &Report) -> Result<(Begun, State, Outbox<Action>), Ending> {
        let rules = self.moving.wishes.rules.into();
        let inspection = look(self.moving.pid, rules, report).await?;
        let (post, mut inbox) = news::queue();
        watch_signals(&post)?;
        let (id, hello) = (new_id()?, spawn_blocking(hello::of_this_host).await??);
        let peer = Peer::new(self.moving.to.clone(), &self.moving.wishes.common.config)?;
        let moved = Moved::default();
        let line = call(&peer, id, &mut inbox, post.clone(), moved.clone()).await?;
        let plan = self.plan(id, &inspection, line.rtt());
        let tree = Tree::Untouched(rules, inspection);
        let engine = self.start_engine(id, &hello, tree, post.clone())?;
        let mut out = Outbox::new();
        let state = State::start(plan, hello, &mut out);
        Ok((Begun { id, peer, line, engine, inbox, post, moved }, state, out))
    }

    fn start_engine(
        &self,
        id: MigrationId,
        hello: &Hello,
        tree: Tree,
        post: Post,
    ) -> Result<EngineThread, Ending> {
        let Move { pid: root, to, wishes } = &self.moving;
        let (boot_id, destination) = (hello.host.boot_id.clone(), to.to_string());
        let header = Header { root: *root, destination, boot_id };
        let create = || Journal::create(&wishes.state.state, id, header);
        let journal = (!self.only_check).then(create).transpose()?;
        let wishes = Wishes::from(wishes.speed);
        Ok(EngineThread::start(Workplace { root: *root, journal, wishes, post, tree })?)
    }

    fn plan(&self, id: MigrationId, found: &Inspection, rtt: Duration) -> Plan {
        let wishes = &self.moving.wishes;
        let goal = Goal {
            downtime_ns_max: wishes.max_downtime.saturating_mul(1_000_000),
            rounds_max: wishes.max_rounds,
            lazy: wishes.lazy.into(),
            fixed_ns: fixed_ns(found, rtt),
        };
        let compress = wishes.speed.compress != Compress::None;
        Plan { id, goal, compress, only_check: self.only_check }
    }
}

/// A session but for its report.
struct Begun {
    id: MigrationId,
    peer: Peer,
    line: Line,
    engine: EngineThread,
    inbox: Inbox,
    post: Post,
    moved: Moved,
}

impl Begun {
    fn with(self, report: Report) -> Session {
        let Self { id, peer, line, engine, inbox, post, moved } = self;
        let course = Course::new(line.number);
        let (line, vouched) = (Some(line), None);
        Session { id, peer, line, engine, inbox, post, moved, report, vouched, course }
    }
}

async fn look(pid: i32, rules: Rules, report: &Report) -> Result<Inspection, Ending> {
    let Looked { outcome, notes } = spawn_blocking(move || inspection::look(pid, rules)).await??;
    notes.iter().for_each(|note| report.note(&note.to_string()));
    let inspection = outcome.map_err(Ending::Refused)?;
    report.expects(inspection.memory_bytes);
    Ok(inspection)
}

/// Nothing was touched yet, so a call that the operator does not want to wait for is just dropped.
async fn call(
    peer: &Peer,
    id: MigrationId,
    inbox: &mut Inbox,
    post: Post,
    moved: Moved,
) -> Result<Line, Ending> {
    let connection = tokio::select! {
        connection = peer.dial() => connection?,
        _ = inbox.recv() => return Err(Ending::Cancelled),
    };
    Ok(Line::open(connection, id, 1, post, moved).await?)
}

/// What a freeze costs without a page: measured for one process; each thread adds its registers
/// and its own rebuilding; image and handover each cross the wire and are answered.
fn fixed_ns(found: &Inspection, rtt: Duration) -> u64 {
    const ALONE_NS: u64 = 4_000_000;
    const PROCESS_NS: u64 = 500_000;
    const THREAD_NS: u64 = 20_000;
    let round_trips = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2);
    let processes = PROCESS_NS * u64::from(found.process_count);
    let threads = THREAD_NS * u64::from(found.thread_count);
    ALONE_NS.saturating_add(processes + threads).saturating_add(round_trips)
}

/// Random, as the system's own generator gives it; see random(4).
pub(crate) fn new_id() -> io::Result<MigrationId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    MigrationId::from_bytes(bytes).ok_or_else(|| io::Error::other("the random device gives zeros"))
}
