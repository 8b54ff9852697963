//! What the source does in the cases that a simulation does not tell apart.

use bytes::Bytes;
use protocol::convergence::Goal;
use protocol::message::*;
use protocol::pages::Tally;
use protocol::source::{Action, Doing, Entry, Input, Inspection, Plan, State, Why};
use protocol::version::{Hello, HostFacts, Offered};
use protocol::{Failure, Outbox, Outcome, Todo};

const ID: MigrationId = MigrationId { high: 1, low: 2 };

fn hello() -> Hello {
    let features = vec!["userfaultfd".into()];
    let host = HostFacts { page_size: 4096, features, ..HostFacts::default() };
    Hello { protocol_min: 1, protocol_max: 1, host, ..Hello::default() }
}

fn plan(lazy: Lazy) -> Plan {
    let goal = Goal { downtime_ns_max: 20_000_000, rounds_max: 3, lazy, fixed_ns: 1_000_000 };
    Plan { id: ID, goal, compress: false, only_check: false }
}

/// A source and what it has asked for since the last look.
struct Source {
    state: Option<State>,
    out: Outbox<Action>,
}

impl Source {
    fn start(lazy: Lazy) -> Self {
        let mut out = Outbox::new();
        let state = Some(State::start(plan(lazy), hello(), &mut out));
        Self { state, out }
    }

    fn recover(last: Entry) -> Self {
        let mut out = Outbox::new();
        let state = Some(State::recover(ID, last, &mut out));
        Self { state, out }
    }

    fn feed(&mut self, input: Input) -> &mut Self {
        let state = self.state.take().expect("a state");
        self.state = Some(state.handle(input, &mut self.out).expect("it makes sense"));
        self
    }

    fn told(&mut self, message: Message) -> &mut Self {
        self.feed(Input::Message(message))
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("a state")
    }

    fn todo(&mut self) -> Vec<Todo<Action>> {
        std::iter::from_fn(|| self.out.pop()).collect()
    }
}

fn inspected(kinds: Vec<Offered>, refusals: Vec<Refusal>) -> Input {
    Input::Inspected(Inspection {
        inventory: Bytes::new(),
        memory_bytes: 1,
        process_count: 1,
        thread_count: 1,
        kinds,
        aspects: vec![],
        refusals,
    })
}

fn decided(outcome: Outcome) -> Message {
    Message::Decided(Decided::new(ID, outcome, 0))
}

fn refusal(object: &str) -> Refusal {
    Refusal::new(object, "is in the way", "Move it.")
}

fn lost() -> Input {
    Input::Disconnected { cause: "cut".into() }
}

/// Everything that a source is fed on its way to the permit, in one round.
fn road() -> Vec<Input> {
    let stored = |round| Input::Message(Message::RoundStored(RoundStored { round, pages: 9 }));
    vec![
        Input::Message(Message::Hello(hello())),
        inspected(vec![], vec![]),
        Input::Message(Message::Accept(Accept::default())),
        Input::Described { layout: Bytes::new(), monotonic_offset_ns: 1, boottime_offset_ns: 2 },
        Input::Message(Message::Staged(Staged {})),
        Input::RoundOpened { layout: Bytes::new() },
        Input::RoundCopied(Tally { pages: 9, ..Tally::default() }),
        stored(0),
        Input::Measured {
            dirty_pages: 0,
            held_back_pages: 0,
            compared_pages: 0,
            round_ns: 1_000_000,
        },
        Input::Frozen { layout: Bytes::new() },
        Input::RoundCopied(Tally::default()),
        Input::Captured { image: Bytes::new() },
        Input::Message(Message::Ready(Ready::default())),
        Input::Recorded(Entry::Surrendered),
    ]
}

fn after(steps: usize) -> Source {
    let mut source = Source::start(Lazy::Auto);
    road().into_iter().take(steps).for_each(|input| {
        source.feed(input);
    });
    source.todo();
    source
}

#[test]
fn every_blocker_is_told_in_one_answer() {
    let mut source = Source::start(Lazy::Auto);
    let mut theirs = hello();
    theirs.host.page_size = 16384;
    let kinds = vec![Offered { name: "io_uring".into(), version: 1 }];
    source.told(Message::Hello(theirs)).feed(inspected(kinds, vec![refusal("fd 3")]));
    source.told(Message::Refuse(Refuse::new(vec![refusal("pid 7")])));
    let State::Refused(refusals) = source.state() else { panic!("not refused") };
    let objects: Vec<_> = refusals.iter().map(|refusal| refusal.object.as_str()).collect();
    assert_eq!(objects, ["host ", "host ", "fd 3", "pid 7"]);
}

#[test]
fn blockers_of_our_own_stand_even_when_the_destination_accepts() {
    let mut source = Source::start(Lazy::Auto);
    source.told(Message::Hello(hello())).feed(inspected(vec![], vec![refusal("fd 3")]));
    source.told(Message::Accept(Accept::default()));
    assert_eq!(source.state(), &State::Refused(vec![refusal("fd 3")]));
    assert!(matches!(source.todo().last(), Some(Todo::Send(Message::Abort(_)))));
}

#[test]
fn lazy_pages_need_a_userfaultfd_on_the_destination() {
    let mut without = hello();
    without.host.features.clear();
    let mut source = Source::start(Lazy::Always);
    source.told(Message::Hello(without.clone())).feed(inspected(vec![], vec![]));
    source.told(Message::Accept(Accept::default()));
    assert!(matches!(source.state(), State::Refused(refusals) if refusals.len() == 1));

    let mut source = Source::start(Lazy::Auto);
    source.told(Message::Hello(without)).feed(inspected(vec![], vec![]));
    let offered = source.todo().into_iter().find_map(|todo| match todo {
        Todo::Send(Message::Offer(offer)) => Some(offer.lazy()),
        _ => None,
    });
    assert_eq!(offered, Some(Lazy::Never), "auto does without");
}

#[test]
fn a_check_ends_with_nothing_touched() {
    let mut out = Outbox::new();
    let only_check = Plan { only_check: true, ..plan(Lazy::Auto) };
    let state = Some(State::start(only_check, hello(), &mut out));
    let mut source = Source { state, out };
    source.told(Message::Hello(hello())).feed(inspected(vec![], vec![]));
    source.told(Message::Accept(Accept::default()));
    assert_eq!(source.state(), &State::Movable);
    assert!(source.todo().iter().all(|todo| !matches!(todo, Todo::Do(Action::Record(_)))));
}

#[test]
fn cancelling_is_honoured_until_the_surrender() {
    let surrendering = road().len() - 1;
    for steps in 0..surrendering {
        let mut source = after(steps);
        let before = source.state().name();
        source.feed(Input::Cancelled);
        if source.state().name() == "Thawing" {
            assert!(source.todo().contains(&Todo::Do(Action::Thaw)), "{before}");
            source.feed(Input::Thawed);
        }
        assert_eq!(source.state(), &State::Kept(Why::Cancelled), "{before}");
    }
    for steps in surrendering..=road().len() {
        let mut source = after(steps);
        let before = source.state().clone();
        source.feed(Input::Cancelled);
        assert_eq!(source.state(), &before, "too late");
    }
}

#[test]
fn a_tree_that_was_never_touched_is_not_thawed() {
    for steps in 0..3 {
        let mut source = after(steps);
        source.feed(lost());
        assert!(matches!(source.state(), State::Kept(Why::Failed(_))));
        assert!(!source.todo().contains(&Todo::Do(Action::Thaw)));
    }
}

#[test]
fn a_tree_that_ends_in_mid_copy_is_gone_and_the_destination_is_told() {
    for steps in 3..road().len() - 1 {
        let mut source = after(steps);
        source.feed(Input::TreeEnded(Failure::default()));
        assert!(matches!(source.state(), State::Gone(_)));
        assert!(matches!(source.todo()[0], Todo::Send(Message::Abort(_))));
    }
}

#[test]
fn the_surrender_is_recorded_before_the_permit_is_sent() {
    let mut source = after(road().len() - 2);
    source.told(Message::Ready(Ready::default()));
    assert_eq!(source.todo(), [Todo::Do(Action::Record(Entry::Surrendered))]);
    source.feed(Input::Recorded(Entry::Surrendered));
    assert_eq!(source.todo(), [Todo::Send(Message::Handover(Handover { migration: ID }))]);
}

#[test]
fn what_makes_no_sense_leaves_the_state_as_it_was() {
    let mut out = Outbox::new();
    for steps in 0..=road().len() {
        let state = after(steps).state().clone();
        let fault = state.clone().handle(Input::Message(Message::PushDone(PushDone {})), &mut out);
        let fault = fault.expect_err("only a source says PushDone");
        assert_eq!(*fault.state, state);
        assert_eq!(fault.to_string(), format!("PushDone makes no sense while {}", state.name()));
    }
    assert_eq!(out.pop(), None);
}

#[test]
fn a_permit_is_not_acted_on_before_it_was_asked_for() {
    for steps in 0..road().len() {
        let mut out = Outbox::new();
        let state = after(steps).state().clone();
        let running = state.handle(Input::Message(decided(Outcome::Running)), &mut out);
        assert!(running.is_err(), "after {steps}");
    }
}

#[test]
fn a_decision_about_another_migration_is_no_decision() {
    let other = MigrationId { high: 3, low: 4 };
    let state = after(road().len()).state().clone();
    let decided = Message::Decided(Decided::new(other, Outcome::Discarded, 0));
    assert!(state.handle(Input::Message(decided), &mut Outbox::new()).is_err());
}

#[test]
fn a_destination_that_forgot_what_it_ran_does_not_bring_the_tree_back() {
    let mut ran = after(road().len());
    ran.told(decided(Outcome::Running)).feed(lost()).feed(Input::Reconnected);
    ran.told(decided(Outcome::Discarded));
    let mut restarted = Source::recover(Entry::RunsThere);
    restarted.feed(Input::Reconnected).told(decided(Outcome::Discarded));
    for mut source in [ran, restarted] {
        assert!(matches!(source.state(), State::InDoubt(doubt) if doubt.doubt.is_some()));
        assert!(!source.todo().contains(&Todo::Do(Action::Thaw)));
        source.feed(Input::Vouched(Outcome::Discarded));
        assert_eq!(source.todo(), [Todo::Do(Action::Thaw)], "an operator may say so");
    }
}

/// Also where nobody here has heard that it ran.
#[test]
fn what_was_lost_there_has_run_there_and_comes_back_by_an_operator_only() {
    let mut source = after(road().len());
    source.told(Message::Abort(Abort { failure: Failure::default(), is_lost: true }));
    source.told(decided(Outcome::Discarded));
    assert!(
        matches!(source.state(), State::InDoubt(doubt) if doubt.ran_there() && doubt.is_lost())
    );
    assert!(!source.todo().contains(&Todo::Do(Action::Thaw)));
    source.feed(Input::Vouched(Outcome::Discarded));
    assert_eq!(source.todo(), [Todo::Do(Action::Thaw)]);
}

#[test]
fn an_explanation_is_not_a_decision() {
    let mut source = after(road().len());
    let failure = Failure { action: "sleep".into(), ..Failure::default() };
    source.told(Message::Abort(Abort { failure: failure.clone(), is_lost: false }));
    let State::InDoubt(doubt) = source.state() else { panic!("not in doubt") };
    assert_eq!(doubt.doubt, Some(failure));
    assert!(!doubt.is_lost(), "it may run there again by itself");
    assert_eq!(source.todo(), []);
}

#[test]
fn the_original_is_reaped_only_after_the_relief_was_recorded() {
    let mut source = after(road().len());
    source.told(decided(Outcome::Running));
    source.todo();
    source.told(Message::Complete(Complete::default()));
    assert_eq!(source.todo(), [Todo::Do(Action::Record(Entry::Relieved))]);
    source.feed(Input::Recorded(Entry::Relieved));
    assert_eq!(source.todo(), [Todo::Do(Action::Reap)]);
    source.feed(Input::Reaped);
    assert_eq!(source.state(), &State::Moved);
    assert_eq!(source.todo()[0], Todo::Send(Message::Done(Done {})));
}

#[test]
fn a_tree_that_cannot_be_thawed_waits_for_an_operator() {
    let mut source = Source::recover(Entry::Opened);
    let fails = || Input::Failed { doing: Doing::Thaw, failure: Failure::default() };
    source.feed(fails()).feed(fails()).feed(fails());
    assert!(matches!(source.state(), State::Stuck(_)));
    source.feed(Input::Retry).feed(Input::Thawed);
    assert!(matches!(source.state(), State::Kept(Why::Failed(_))));
}

#[test]
fn after_a_restart_it_runs_at_once_and_the_destination_is_asked_to_discard() {
    let mut source = Source::recover(Entry::Opened);
    assert_eq!(source.todo(), [Todo::Do(Action::Thaw), Todo::Do(Action::Reconnect)]);
    source.feed(Input::Reconnected);
    assert_eq!(source.todo(), [Todo::Send(Message::Inquire(Inquire { migration: ID }))]);
    source.feed(Input::Thawed);
    assert_eq!(source.todo(), [Todo::Do(Action::Record(Entry::Kept))]);
    source.told(decided(Outcome::Discarded));
    assert!(matches!(source.state(), State::Kept(Why::Failed(_))));
}

#[test]
fn a_destination_that_cannot_be_asked_does_not_keep_the_tree_from_running() {
    let mut source = Source::recover(Entry::Opened);
    source.feed(lost()).feed(Input::Thawed);
    assert!(matches!(source.state(), State::Kept(Why::Failed(_))));
}

#[test]
fn an_original_that_died_while_serving_is_told() {
    let mut source = after(road().len());
    source.told(decided(Outcome::Running));
    source.todo();
    source.feed(Input::TreeEnded(Failure::default()));
    assert_eq!(source.state(), &State::Moved);
    assert!(matches!(source.todo()[0], Todo::Send(Message::Abort(_))));
}
