//! One attempt to move a tree, or to find out whether it could be moved, up to the first word.

use crate::addresses::{self, Addresses};
use crate::audience::Audience;
use crate::bulk::Moved;
use crate::claim::Claim;
use crate::cli::{Move, MoveWishes, Moving, When};
use crate::codec::Compress;
use crate::connection::{Line, Peer};
use crate::ending::Ending;
use crate::engine_thread::{EngineThread, Tree, Workplace};
use crate::hello;
use crate::inspection::{self, Looked};
use crate::journal::{Header, Journal};
use crate::news::Post;
use crate::page_streams::Wishes;
use crate::report::Report;
use crate::session::{Course, Session};
use engine::inventory::Counting;
use engine::kinds::Rules;
use protocol::convergence::Goal;
use protocol::source::{Action, Inspection, Plan, State};
use protocol::version::Hello;
use protocol::{MigrationId, Outbox};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::spawn_blocking;

#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: MigrationId,
    pub(crate) moving: Move,
    pub(crate) only_check: bool,
}

impl Attempt {
    /// What went wrong was told.
    pub(crate) async fn run(self, mut audience: Audience) -> Ending {
        match self.claimed(&mut audience).await {
            Ok((_claim, begun, state, out)) => begun.with(self.id, audience).run(state, out).await,
            Err(ending) => {
                audience.report.ends(&ending, &self.moving.to.host);
                ending
            }
        }
    }

    /// The claim first, since whoever else has it may be about to freeze the tree. A check only
    /// looks.
    async fn claimed(
        &self,
        audience: &mut Audience,
    ) -> Result<(Option<Claim>, Begun, State, Outbox<Action>), Ending> {
        let root = self.moving.pid;
        let claim = match self.only_check {
            true => None,
            false => Some(spawn_blocking(move || Claim::on(root)).await??),
        };
        let (begun, state, out) = self.begin(audience).await?;
        Ok((claim, begun, state, out))
    }

    /// Looks at the tree first: what this host alone knows to be in the way needs no connection.
    async fn begin(
        &self,
        audience: &mut Audience,
    ) -> Result<(Begun, State, Outbox<Action>), Ending> {
        let rules = self.moving.wishes.rules.into();
        let counting = counting(&self.moving.wishes);
        let moving = self.moving.wishes.moving.clone();
        let inspection = look(self.moving.pid, rules, counting, moving, &audience.report).await?;
        let (id, hello) = (self.id, spawn_blocking(hello::of_this_host).await??);
        let peer = Peer::new(self.moving.to.clone(), &self.moving.wishes.common.config)?;
        let moved = Moved::default();
        let line = call(&peer, id, audience, moved.clone()).await?;
        let plan = self.plan(id, &inspection, line.rtt());
        let addresses = self.addresses(line.peer_ip()).await?;
        let tree = Tree::Untouched(rules, addresses, inspection);
        let engine = self.start_engine(id, &hello, tree, audience.post.clone())?;
        let mut out = Outbox::new();
        let state = State::start(plan, hello, &mut out);
        Ok((Begun { peer, line, engine, moved }, state, out))
    }

    /// What moves besides. Which of them the destination is reached by is known only now.
    async fn addresses(&self, destination: IpAddr) -> Result<Addresses, Ending> {
        let (root, moving) = (self.moving.pid, self.moving.wishes.moving.clone());
        let looking = spawn_blocking(move || {
            let refusals = addresses::examine(&moving.addresses, Some(destination))?;
            let found = Addresses::find(root, &moving.addresses, &moving.bridges)?;
            Ok::<_, engine::Error>((found, refusals))
        });
        let (addresses, refusals) = looking.await??;
        match refusals.is_empty() {
            true => Ok(addresses),
            false => Err(Ending::Refused(refusals.iter().map(inspection::refusal).collect())),
        }
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
        let addresses = match &tree {
            Tree::Untouched(_, addresses, _) => addresses.clone(),
            Tree::LeftBehind(_) | Tree::Ended => Addresses::default(),
        };
        let header = Header { root: *root, destination, boot_id, addresses };
        let hooks = header.hooks(&wishes.common.config, id);
        let plan = || Journal::plan(&wishes.state.state, id, header);
        let journal = (!self.only_check).then(plan).transpose()?;
        let wishes = Wishes::from(wishes.speed);
        Ok(EngineThread::start(Workplace { root: *root, journal, wishes, post, tree, hooks })?)
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

/// A session but for those who follow it.
struct Begun {
    peer: Peer,
    line: Line,
    engine: EngineThread,
    moved: Moved,
}

impl Begun {
    fn with(self, id: MigrationId, audience: Audience) -> Session {
        let Self { peer, line, engine, moved } = self;
        let Audience { report, post, inbox, patience } = audience;
        let course = Course::new(line.number);
        let (line, vouched) = (Some(line), None);
        Session { id, peer, line, engine, inbox, post, moved, report, vouched, patience, course }
    }
}

/// Sharing needs a round for the parents and another for their children.
fn counting(wishes: &MoveWishes) -> Counting {
    match wishes.lazy {
        When::Auto | When::Never if wishes.max_rounds > 1 => Counting::Once,
        _ => Counting::InEach,
    }
}

async fn look(
    pid: i32,
    rules: Rules,
    counting: Counting,
    moving: Moving,
    report: &Report,
) -> Result<Inspection, Ending> {
    let looking = spawn_blocking(move || inspection::look(pid, rules, counting, moving));
    let Looked { outcome, notes } = looking.await??;
    notes.iter().for_each(|note| report.note(&note.to_string()));
    let inspection = outcome.map_err(Ending::Refused)?;
    report.expects(inspection.memory_bytes);
    Ok(inspection)
}

/// Nothing was touched yet, so a call that the operator does not want to wait for is just dropped.
async fn call(
    peer: &Peer,
    id: MigrationId,
    audience: &mut Audience,
    moved: Moved,
) -> Result<Line, Ending> {
    let connection = tokio::select! {
        connection = peer.dial() => connection?,
        _ = audience.inbox.recv() => return Err(Ending::Cancelled),
    };
    Ok(Line::open(connection, id, 1, audience.post.clone(), moved).await?)
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
pub fn new_id() -> io::Result<MigrationId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    MigrationId::from_bytes(bytes).ok_or_else(|| io::Error::other("the random device gives zeros"))
}
