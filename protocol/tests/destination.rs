//! What the destination does in the cases that a simulation does not tell apart.

use protocol::destination::{Action, Boot, Doing, Entry, Input, State};
use protocol::message::*;
use protocol::version::Hello;
use protocol::{Failure, Outbox, Outcome, Todo};

const ID: MigrationId = MigrationId { high: 1, low: 2 };

/// A destination and what it has asked for since the last look.
struct Destination {
    state: Option<State>,
    out: Outbox<Action>,
}

impl Destination {
    fn listen() -> Self {
        Self { state: Some(State::listen(Hello::default())), out: Outbox::new() }
    }

    fn recover(last: Entry, boot: Boot) -> Self {
        let mut out = Outbox::new();
        Self { state: Some(State::recover(ID, last, boot, &mut out)), out }
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

    /// The answer to a question, when there is one at once.
    fn answer(&mut self) -> Option<Outcome> {
        self.todo();
        self.told(inquire());
        self.todo().into_iter().find_map(|todo| match todo {
            Todo::Send(Message::Decided(decided)) => Some(decided.outcome()),
            _ => None,
        })
    }
}

fn inquire() -> Message {
    Message::Inquire(Inquire { migration: ID })
}

fn handover() -> Message {
    Message::Handover(Handover { migration: ID })
}

fn recorded(outcome: Outcome) -> Input {
    Input::Recorded(Entry::Decided(outcome))
}

fn failed(doing: Doing) -> Input {
    Input::Failed { doing, failure: Failure::default() }
}

fn lost() -> Input {
    Input::Disconnected { cause: "cut".into() }
}

/// Everything that a destination is fed on its way to being ready, in one round.
fn road() -> Vec<Input> {
    let message = Input::Message;
    vec![
        message(Message::Hello(Hello::default())),
        message(Message::Offer(Offer { migration: ID, ..Offer::default() })),
        Input::Judged { refusals: vec![], monotonic_ns: 1, boottime_ns: 2 },
        Input::Recorded(Entry::Accepted),
        message(Message::Stage(Stage::default())),
        Input::ShellBuilt,
        message(Message::RoundBegin(RoundBegin::default())),
        message(Message::RoundEnd(RoundEnd::default())),
        Input::RoundStored { round: 0, pages: 0 },
        message(Message::Image(Image::default())),
        Input::Built(Ready::default()),
    ]
}

fn after(steps: usize) -> Destination {
    let mut destination = Destination::listen();
    road().into_iter().take(steps).for_each(|input| {
        destination.feed(input);
    });
    destination.todo();
    destination
}

fn running() -> Destination {
    let mut destination = after(road().len());
    destination.told(handover()).feed(recorded(Outcome::Running));
    destination.feed(Input::Running { resumed_after_ns: 7 });
    destination
}

#[test]
fn asked_about_what_it_does_not_know_it_decides_before_it_answers() {
    let mut destination = Destination::listen();
    destination.told(inquire());
    assert_eq!(
        destination.todo(),
        [Todo::Do(Action::Record(Entry::Decided(Outcome::Discarded)))],
        "not a word yet"
    );
    destination.feed(recorded(Outcome::Discarded)).feed(Input::Discarded);
    destination.todo();
    destination.told(handover());
    let late = Decided::new(ID, Outcome::Discarded, 0);
    assert_eq!(destination.todo(), [Todo::Send(Message::Decided(late))]);
}

#[test]
fn the_decision_to_run_is_written_down_before_anything_runs() {
    let mut destination = after(road().len());
    destination.told(handover());
    assert_eq!(destination.todo(), [Todo::Do(Action::Record(Entry::Decided(Outcome::Running)))]);
    destination.feed(recorded(Outcome::Running));
    assert_eq!(destination.todo(), [Todo::Do(Action::Run)]);
    destination.feed(Input::Running { resumed_after_ns: 7 });
    let told = Decided::new(ID, Outcome::Running, 7);
    assert_eq!(destination.todo(), [Todo::Send(Message::Decided(told)), Todo::Do(Action::Fill)]);
}

#[test]
fn whatever_ends_it_before_the_decision_decides_to_discard() {
    for steps in 4..=road().len() {
        for input in [
            lost(),
            failed(Doing::Build),
            Input::TimedOut,
            Input::Message(Message::Abort(Abort { failure: Failure::default(), is_lost: false })),
            Input::Message(inquire()),
        ] {
            let mut destination = after(steps);
            destination.feed(input);
            let recording = Todo::Do(Action::Record(Entry::Decided(Outcome::Discarded)));
            assert!(destination.todo().contains(&recording), "after {steps}");
            assert_eq!(destination.state().name(), "Deciding");
        }
    }
}

#[test]
fn the_same_answer_is_given_for_ever() {
    let mut discarded = after(5);
    discarded.feed(lost()).feed(recorded(Outcome::Discarded)).feed(Input::Discarded);
    let mut rebooted = Destination::recover(Entry::Decided(Outcome::Discarded), Boot::Another);
    rebooted.feed(Input::Discarded);
    let complete = Destination::recover(Entry::Complete(Complete::default()), Boot::Same);
    for (mut destination, outcome) in [
        (discarded, Outcome::Discarded),
        (running(), Outcome::Running),
        (complete, Outcome::Running),
        (rebooted, Outcome::Discarded),
    ] {
        for _ in 0..3 {
            assert_eq!(destination.answer(), Some(outcome));
            destination.feed(lost());
        }
    }
}

#[test]
fn a_question_while_the_decision_is_on_its_way_is_answered_by_it() {
    let mut destination = after(road().len());
    destination.told(handover()).told(inquire());
    destination.feed(recorded(Outcome::Running));
    destination.todo();
    destination.feed(Input::Running { resumed_after_ns: 0 });
    let todo = destination.todo();
    assert!(matches!(todo[0], Todo::Send(Message::Decided(_))));
    assert!(todo.contains(&Todo::Do(Action::ListMissing)), "it may have been restarted");
}

#[test]
fn a_decision_that_cannot_be_written_down_is_neither_told_nor_changed() {
    let mut destination = after(road().len());
    destination.told(handover());
    (0..3).for_each(|_| {
        destination.feed(failed(Doing::Record));
    });
    assert_eq!(destination.state().name(), "Stuck");
    assert_eq!(destination.answer(), None);
    destination.feed(Input::Retry);
    assert_eq!(destination.todo(), [Todo::Do(Action::Record(Entry::Decided(Outcome::Running)))]);
}

#[test]
fn a_stuck_decision_notices_that_its_source_has_gone() {
    let mut destination = after(road().len());
    destination.told(handover()).feed(recorded(Outcome::Running));
    (0..3).for_each(|_| {
        destination.feed(failed(Doing::Run));
    });
    destination.told(inquire()).feed(lost()).feed(Input::Retry);
    destination.todo();
    destination.feed(Input::Running { resumed_after_ns: 0 });
    assert!(!destination.todo().contains(&Todo::Do(Action::ListMissing)), "nobody is there");
    assert_eq!(destination.state().name(), "Starving");
}

#[test]
fn a_failure_that_comes_late_does_not_touch_the_decision() {
    let mut destination = after(road().len() - 1);
    destination.feed(lost()).feed(failed(Doing::Build));
    destination.todo();
    destination.feed(recorded(Outcome::Discarded));
    assert_eq!(destination.todo(), [Todo::Do(Action::Discard)]);
}

#[test]
fn an_id_that_was_decided_is_not_offered_again() {
    for mut destination in
        [Destination::recover(Entry::Complete(Complete::default()), Boot::Same), running()]
    {
        destination.todo();
        destination.told(Message::Offer(Offer { migration: ID, ..Offer::default() }));
        assert!(matches!(destination.todo()[..], [Todo::Send(Message::Refuse(_))]));
    }
}

#[test]
fn a_reboot_after_the_decision_to_run_is_told_and_not_decided_again() {
    let mut destination = Destination::recover(Entry::Decided(Outcome::Running), Boot::Another);
    assert_eq!(destination.state().name(), "Lost");
    destination.todo();
    destination.told(inquire());
    let todo = destination.todo();
    let [Todo::Send(Message::Abort(abort))] = &todo[..] else { panic!("{todo:?}") };
    assert!(abort.failure.chain[0].contains("rebooted"));
}

#[test]
fn a_tree_is_buried_in_the_journal_before_it_is_ended() {
    let mut destination = running();
    destination.todo();
    destination.feed(Input::Buried);
    let todo = destination.todo();
    assert!(matches!(todo[0], Todo::Do(Action::Record(Entry::Lost(_)))));
    assert_eq!(todo.last(), Some(&Todo::Do(Action::Discard)));
    assert_eq!(destination.answer(), None, "it did run here");
}

#[test]
fn it_starves_without_its_source_and_recovers_with_it() {
    let mut destination = running();
    destination.feed(lost());
    assert_eq!(destination.state().name(), "Starving");
    destination.feed(Input::MissingListed { runs: vec![1].into() });
    destination.todo();
    destination.told(inquire());
    assert_eq!(destination.state().name(), "Filling");
    assert!(destination.todo().contains(&Todo::Do(Action::ListMissing)));
    destination.feed(Input::MissingListed { runs: vec![1].into() });
    assert!(matches!(destination.todo()[..], [Todo::Send(Message::Missing(_))]));
    destination.feed(Input::Filled(Complete::default()));
    destination.feed(Input::Recorded(Entry::Complete(Complete::default())));
    assert!(matches!(destination.todo()[..], [_, Todo::Send(Message::Complete(_))]));
}

#[test]
fn rounds_come_in_order_or_not_at_all() {
    let begin = |round| Message::RoundBegin(RoundBegin { round, ..RoundBegin::default() });
    for round in [1, 2, u32::MAX] {
        let state = after(6).state().clone();
        let fault = state.clone().handle(Input::Message(begin(round)), &mut Outbox::new());
        assert_eq!(*fault.expect_err("the first round is 0").state, state);
    }
}

#[test]
fn it_is_ready_only_when_pages_and_image_are_both_done() {
    let image = Message::Image(Image::default());
    let end = Message::RoundEnd(RoundEnd::default());
    let mut early = after(7);
    early.told(image.clone()).feed(Input::Built(Ready::default())).told(end.clone());
    assert_eq!(early.state().name(), "Building");
    early.feed(Input::RoundStored { round: 0, pages: 0 });
    assert_eq!(early.state().name(), "Ready");

    let mut late = after(7);
    late.told(end).told(image).feed(Input::RoundStored { round: 0, pages: 0 });
    assert_eq!(late.state().name(), "Building");
    late.feed(Input::Built(Ready::default()));
    assert_eq!(late.state().name(), "Ready");
}

#[test]
fn an_image_without_pages_before_it_is_refused() {
    let image = Input::Message(Message::Image(Image::default()));
    assert!(after(6).state().clone().handle(image, &mut Outbox::new()).is_err());
}

/// It may not wait for an offer that it could not read.
#[test]
fn a_source_of_another_version_is_told_ours_and_declined() {
    let mut destination = Destination::listen();
    let theirs = Hello { protocol_min: 7, protocol_max: 9, ..Hello::default() };
    destination.told(Message::Hello(theirs));
    assert_eq!(destination.todo(), [Todo::Send(Message::Hello(Hello::default()))]);
    assert_eq!(destination.state().name(), "Declined");
    destination.told(Message::Offer(Offer { migration: ID, ..Offer::default() }));
    assert_eq!(destination.todo(), []);
}
