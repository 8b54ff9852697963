//! The one thread on which the engine works on a tree: ptrace answers nobody else.

use crate::report;
use crate::session::Event;
use crate::tree::{NotRun, Parts, Tree};
use bytes::Bytes;
use engine::clocks::Clocks;
use engine::failure_point;
use engine::priority::{Aside, Half, Urgent};
use protocol::destination::{Doing, Input};
use protocol::message::Ready;
use protocol::{Failure, Phase};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// A machine waits for the answer to one order before it gives the next, but for a discard.
const ORDERS_MAX: usize = 8;

/// What the thread is told to do, one thing after the other.
#[derive(Debug)]
pub enum Order {
    Stage {
        layout: Bytes,
        offsets: Clocks,
    },
    Open {
        round: u32,
        layout: Bytes,
    },
    /// A round has landed. See [`Tree::tidy`].
    Tidy {
        round: u32,
        pages: u64,
    },
    Build {
        image: Bytes,
    },
    /// See [`Tree::outlive_us`].
    OutliveUs {
        answer: oneshot::Sender<Result<(), Failure>>,
    },
    /// `since`: when the permit came.
    Run {
        since: Option<Instant>,
    },
    Discard,
    /// Ends a tree that was decided to run here, and cannot.
    GiveUp {
        failure: Failure,
    },
}

/// Gives orders to the thread. It ends when this is dropped, and with it a tree that is not running.
#[derive(Debug)]
pub struct EngineThread(SyncSender<Order>);

/// The thread is gone: it has panicked.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the thread that works on the tree is gone")]
pub struct Gone;

impl EngineThread {
    /// Answers come as inputs among the events.
    pub fn start(parts: Parts, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let (orders, received) = sync_channel(ORDERS_MAX);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || work(Tree::new(parts, runtime), &received, &events))?;
        Ok(Self(orders))
    }

    pub fn order(&self, order: Order) -> Result<(), Gone> {
        self.0.try_send(order).map_err(|_| Gone)
    }
}

fn work(mut tree: Tree, orders: &Receiver<Order>, events: &mpsc::Sender<Event>) {
    let _aside = Aside::begin(Half::Lower);
    let mut urgent: Option<Urgent> = None;
    while let Ok(order) = orders.recv() {
        let is_last =
            !matches!(order, Order::Build { .. } | Order::OutliveUs { .. } | Order::Tidy { .. });
        if matches!(order, Order::Build { .. }) {
            urgent.get_or_insert_with(Urgent::begin);
        }
        if let Some(input) = carry_out(&mut tree, order) {
            // Fails only when the session has ended, and so will this.
            let _ = events.blocking_send(Event::Input(input));
        }
        if is_last {
            drop(urgent.take());
        }
    }
}

fn carry_out(tree: &mut Tree, order: Order) -> Option<Input> {
    let (step, doing) = step(&order);
    let failed = |error: engine::Error| {
        let failure = report::of_engine(Phase::Unknown, &error);
        Some(Input::Failed { doing, failure })
    };
    if let Err(error) = failure_point::pass(step, "before") {
        return failed(error);
    }
    let answer = perform(tree, order);
    failure_point::pass(step, "after").map_or_else(failed, |()| answer)
}

/// Its name among the [`failure_point`]s, and what the machine calls it.
fn step(order: &Order) -> (&'static str, Doing) {
    match order {
        Order::Stage { .. } => ("destination.stage", Doing::BuildShell),
        Order::Open { .. } => ("destination.open", Doing::Store),
        Order::Tidy { .. } => ("destination.tidy", Doing::Store),
        Order::Build { .. } => ("destination.build", Doing::Build),
        Order::OutliveUs { .. } => ("destination.outlive", Doing::Record),
        Order::Run { .. } => ("destination.run", Doing::Run),
        Order::GiveUp { .. } => ("destination.give-up", Doing::Run),
        Order::Discard => ("destination.discard", Doing::Discard),
    }
}

fn perform(tree: &mut Tree, order: Order) -> Option<Input> {
    let failed = |doing| move |failure| Input::Failed { doing, failure };
    Some(match order {
        Order::Stage { layout, offsets } => {
            let staged = tree.stage(&layout, offsets);
            staged.map_or_else(failed(Doing::BuildShell), |()| Input::ShellBuilt)
        }
        // Whoever waits for the round learns by the gate that it is open.
        Order::Open { round, layout } => failed(Doing::Store)(tree.open(round, &layout).err()?),
        Order::Tidy { round, pages } => {
            let stored = |()| Input::RoundStored { round, pages };
            tree.tidy().map_or_else(failed(Doing::Store), stored)
        }
        Order::Build { image } => {
            let built = |timings_ns| Input::Built(Ready { timings_ns });
            tree.build(&image).map_or_else(failed(Doing::Build), built)
        }
        Order::OutliveUs { answer } => {
            // Fails only when the session has ended.
            let _ = answer.send(tree.outlive_us());
            return None;
        }
        Order::Run { since } => run(tree, since),
        Order::GiveUp { failure } => Input::TreeLost(match tree.discard() {
            Ok(()) => failure,
            Err(more) => failure.because(format!("it may still be there: {more}")),
        }),
        Order::Discard => tree.discard().map_or_else(failed(Doing::Discard), |()| Input::Discarded),
    })
}

fn run(tree: &mut Tree, since: Option<Instant>) -> Input {
    match tree.run() {
        Ok(()) => {
            let passed = since.map_or(0, |since| since.elapsed().as_nanos());
            Input::Running { resumed_after_ns: u64::try_from(passed).unwrap_or(u64::MAX) }
        }
        Err(NotRun::Failed(failure)) => Input::Failed { doing: Doing::Run, failure },
        Err(NotRun::Lost(failure)) => Input::TreeLost(failure),
    }
}
