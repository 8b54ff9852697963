//! The one thread that may touch the tree: ptrace answers only the thread that attached.
//!
//! It takes the machine's actions in their order and answers each with an input. Everything that
//! may block for long (a full stream, a pause) can be cut short by the interrupt.

use crate::addresses::Addresses;
use crate::connection::PageLines;
use crate::interrupt::Interrupt;
use crate::journal::Journal;
use crate::left_behind::Abandoned;
use crate::news::Post;
use crate::page_streams::Wishes;
use crate::performer::Performer;
use engine::hooks::Hooks;
use engine::kinds::Rules;
use protocol::source::{Action, Inspection};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The machine never has more than a handful of actions under way.
const COMMANDS_MAX: usize = 32;

#[derive(Debug)]
enum Command {
    Do(Action),
    /// Pages go through these from now on.
    Attach(PageLines),
}

/// Everything that the thread works with.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub(crate) root: i32,
    /// None where nothing will be touched.
    pub(crate) journal: Option<Journal>,
    pub(crate) wishes: Wishes,
    pub(crate) post: Post,
    pub(crate) tree: Tree,
    pub(crate) hooks: Hooks,
}

/// How the tree comes to it, and the addresses that move with it.
#[derive(Debug)]
pub(crate) enum Tree {
    Untouched(Rules, Addresses, Inspection),
    LeftBehind(Abandoned),
    /// With the kernel it ran on.
    Ended,
}

#[derive(Debug)]
pub(crate) struct EngineThread {
    commands: SyncSender<Command>,
    interrupt: Arc<Interrupt>,
    thread: JoinHandle<()>,
}

impl EngineThread {
    pub(crate) fn start(workplace: Workplace) -> io::Result<Self> {
        let (commands, queue) = sync_channel(COMMANDS_MAX);
        let interrupt = Arc::new(Interrupt::default());
        let raised = Arc::clone(&interrupt);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || work(Performer::new(workplace, raised), &queue))?;
        Ok(Self { commands, interrupt, thread })
    }

    /// A thread that has panicked takes nothing any more; its end is noticed by `finish`.
    pub(crate) fn perform(&self, action: Action) {
        let _thread_is_gone = self.commands.send(Command::Do(action));
    }

    pub(crate) fn attach(&self, lines: PageLines) {
        let _thread_is_gone = self.commands.send(Command::Attach(lines));
    }

    /// Ends early what can be ended early.
    pub(crate) fn interrupt(&self) {
        self.interrupt.raise();
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until everything that was asked for is done. False when the thread has panicked.
    pub(crate) fn finish(self) -> bool {
        drop(self.commands);
        self.thread.join().is_ok()
    }
}

fn work(mut performer: Performer, commands: &Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Do(action) => performer.answer(action),
            Command::Attach(lines) => performer.attach(lines),
        }
    }
}
