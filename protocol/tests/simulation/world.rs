//! What the machines are told about, and what their actions do.

use crate::destination_host::DestinationHost;
use crate::random::Random;
use crate::source_host::SourceHost;
use protocol::{Message, MigrationId, destination, source};
use std::collections::VecDeque;

pub(crate) const ID: MigrationId = MigrationId { high: 1, low: 2 };

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Story {
    Calm,
    Crashes,
    Reboots,
}

pub(crate) struct World {
    random: Random,
    story: Story,
    aloud: bool,
    pub(crate) source: SourceHost,
    pub(crate) destination: DestinationHost,
    to_source: VecDeque<Message>,
    to_destination: VecDeque<Message>,
    connected: bool,
    unlucky: bool,
    pub(crate) crashes: u32,
    pub(crate) doubted: bool,
    pub(crate) starved: bool,
}

const TROUBLED_STEPS: u64 = 300;
const QUIET_STEPS: u64 = 3000;

impl World {
    pub(crate) fn new(seed: u64, story: Story, aloud: bool) -> Self {
        let mut random = Random::new(seed);
        let (source, first_words) = SourceHost::new(&mut random);
        Self {
            random,
            story,
            aloud,
            source,
            destination: DestinationHost::new(),
            to_source: VecDeque::new(),
            to_destination: first_words,
            connected: true,
            unlucky: false,
            crashes: 0,
            doubted: false,
            starved: false,
        }
    }

    pub(crate) fn live(&mut self) {
        if self.story != Story::Calm {
            // Trouble that always starts at once would hardly ever see a handover.
            let quiet = self.random.below(TROUBLED_STEPS);
            (0..TROUBLED_STEPS).for_each(|step| self.step(step >= quiet));
        }
        for _ in 0..QUIET_STEPS {
            if self.is_at_rest() {
                break;
            }
            self.step(false);
        }
        assert!(self.is_at_rest() || self.is_named(), "it comes to rest: {}", self.states());
        match self.story {
            Story::Calm => assert!(self.is_moved()),
            Story::Crashes => self.assert_exactly_one(),
            Story::Reboots => self.assert_one_or_named(),
        }
    }

    fn step(&mut self, troubled: bool) {
        match self.random.below(if troubled { 12 } else { 9 }) {
            0 | 1 => self.deliver_to_source(),
            2 | 3 => self.deliver_to_destination(),
            4 | 5 => self.source_acts(troubled),
            6 => self.destination_acts(troubled),
            7 => self.pages_flow(),
            8 => self.someone_notices_or_waits(troubled),
            9 => self.mishap(),
            10 => self.destination_acts(troubled),
            _ => self.pages_flow(),
        }
        self.doubted |= self.source.state_name() == "InDoubt";
        self.starved |= self.destination.state_name() == "Starving";
        assert!(!(self.source.runs() && self.destination.runs()), "two copies run");
    }

    fn mishap(&mut self) {
        match self.random.below(60) {
            0..6 if self.connected => self.cut(),
            6..8 => self.crash_source(),
            8..10 => self.crash_destination(),
            10 => self.feed_source(source::Input::Cancelled),
            11 if self.story == Story::Reboots => self.reboot_source(),
            12 if self.story == Story::Reboots => self.reboot_destination(),
            _ => {}
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{}", what());
        }
    }

    fn states(&self) -> String {
        format!("{} / {}", self.source.state_name(), self.destination.state_name())
    }

    fn deliver_to_source(&mut self) {
        if let Some(message) = self.to_source.pop_front() {
            self.feed_source(source::Input::Message(message));
        }
    }

    fn deliver_to_destination(&mut self) {
        if let Some(message) = self.to_destination.pop_front() {
            self.feed_destination(destination::Input::Message(message));
        }
    }

    fn feed_source(&mut self, input: source::Input) {
        self.say(|| format!("source {} <- {input:?}", self.source.state_name()));
        let said = self.source.feed(input);
        if self.connected {
            self.to_destination.extend(said);
        }
    }

    fn feed_destination(&mut self, input: destination::Input) {
        self.say(|| format!("destination {} <- {input:?}", self.destination.state_name()));
        let said = self.destination.feed(input);
        if self.connected {
            self.to_source.extend(said);
        }
    }

    fn source_acts(&mut self, troubled: bool) {
        let Some(action) = self.source.next_action(&mut self.random) else { return };
        self.say(|| format!("source does {action:?}"));
        if action == source::Action::Reconnect {
            return self.reconnect(troubled);
        }
        if action == source::Action::Reap {
            assert!(self.destination.was_complete, "reaped while pages were missing");
        }
        let trouble = self.strikes(troubled);
        match self.source.perform(action, trouble, &mut self.random) {
            Some(input) => self.feed_source(input),
            None => self.crash_source(),
        }
    }

    /// Misfortunes come together: whoever could not write a line will not write the next one.
    fn strikes(&mut self, troubled: bool) -> bool {
        let one_in = if self.unlucky { 2 } else { 25 };
        self.unlucky = troubled && self.random.below(one_in) == 0;
        self.unlucky
    }

    fn destination_acts(&mut self, troubled: bool) {
        let Some(action) = self.destination.next_action() else { return };
        self.say(|| format!("destination does {action:?}"));
        let trouble = self.strikes(troubled);
        match self.destination.perform(action, trouble, &mut self.random) {
            Done::Input(input) => self.feed_destination(*input),
            Done::Nothing => {}
            Done::Died => self.crash_destination(),
        }
    }

    /// Pushed pages arrive while both ends of the stream live and someone takes them in.
    fn pages_flow(&mut self) {
        if self.connected && self.source.pushes {
            self.destination.take_a_page();
            if self.destination.lacks_nothing() {
                self.source.pushes = false;
                self.feed_source(source::Input::Pushed);
            }
        }
        if let Some(filled) = self.destination.filled() {
            self.feed_destination(filled);
        }
    }

    fn cut(&mut self) {
        self.say(|| "the link is cut".into());
        self.connected = false;
        self.to_source.clear();
        self.to_destination.clear();
        self.source.pushes = false;
        self.source.has_news = true;
        self.destination.has_news = true;
    }

    /// Each side notices a cut in its own time; or has waited long enough.
    fn someone_notices_or_waits(&mut self, troubled: bool) {
        match self.random.below(4) {
            0 if self.source.has_news => self.source_notices(),
            1 if self.destination.has_news => self.destination_notices(),
            // In quiet times only those are tired of waiting who wait for something lost.
            2 if self.source.is_patient() && self.may_time_out(troubled) => {
                self.feed_source(source::Input::TimedOut);
            }
            3 if self.destination.is_patient() && troubled && self.may_time_out(troubled) => {
                self.feed_destination(destination::Input::TimedOut);
            }
            0 if !troubled => self.retry(),
            _ => {}
        }
    }

    fn may_time_out(&mut self, troubled: bool) -> bool {
        let asks = matches!(self.source.state_name(), "InDoubt" | "Serving");
        if troubled { self.random.below(8) == 0 } else { asks && !self.connected }
    }

    fn retry(&mut self) {
        if self.source.state_name() == "Stuck" {
            self.feed_source(source::Input::Retry);
        }
        if self.destination.state_name() == "Stuck" {
            self.feed_destination(destination::Input::Retry);
        }
    }

    fn source_notices(&mut self) {
        self.source.has_news = false;
        self.feed_source(source::Input::Disconnected { cause: "cut".into() });
    }

    fn destination_notices(&mut self) {
        self.destination.has_news = false;
        self.feed_destination(destination::Input::Disconnected { cause: "cut".into() });
    }

    /// What the drivers promise: the end of the old link is told before anything of the new one.
    fn reconnect(&mut self, troubled: bool) {
        if self.connected {
            self.cut();
        }
        self.source.has_news = false;
        if self.destination.has_news {
            self.destination_notices();
        }
        if troubled && self.random.below(3) == 0 {
            return self.source_notices();
        }
        self.connected = true;
        self.feed_source(source::Input::Reconnected);
    }

    fn crash_source(&mut self) {
        self.crashes += 1;
        self.say(|| "the source's agent dies and is restarted".into());
        self.cut();
        self.source.has_news = false;
        self.source.restart();
    }

    fn crash_destination(&mut self) {
        self.crashes += 1;
        self.say(|| "the destination's agent dies and is restarted".into());
        self.cut();
        self.destination.has_news = false;
        self.destination.restart();
    }

    fn reboot_source(&mut self) {
        self.say(|| "the source reboots".into());
        self.cut();
        self.source.has_news = false;
        self.source.reboot();
    }

    fn reboot_destination(&mut self) {
        self.say(|| "the destination reboots".into());
        self.cut();
        self.destination.has_news = false;
        self.destination.reboot(&mut self.random);
    }

    fn is_at_rest(&self) -> bool {
        let nothing_on_its_way =
            !self.connected || (self.to_source.is_empty() && self.to_destination.is_empty());
        nothing_on_its_way
            && self.source.is_at_rest()
            && self.destination.is_at_rest()
            && !self.destination.has_news
            && self.source.is_final()
    }

    /// States in which nothing goes on by itself, and an operator is told why: the destination
    /// forgot or lost what it ran, or the source lost what the destination still needs.
    fn is_named(&self) -> bool {
        let (here, there) = (self.source.state_name(), self.destination.state_name());
        let doubt = here == "InDoubt" && matches!(there, "Lost" | "Discarded");
        let starves = here == "Moved" && there == "Starving";
        (doubt && self.destination.rebooted) || (starves && self.source.rebooted)
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.source.state_name() == "Moved"
    }

    pub(crate) fn nobody_runs(&self) -> bool {
        !self.source.runs() && !self.destination.runs()
    }

    fn assert_exactly_one(&self) {
        assert!(self.source.runs() ^ self.destination.runs(), "one copy: {}", self.states());
        assert_eq!(self.is_moved(), self.destination.runs(), "{}", self.states());
        let there = self.destination.state_name();
        let agrees = if self.is_moved() {
            matches!(there, "Complete" | "Done")
        } else {
            matches!(there, "Discarded" | "Declined" | "Listening" | "Greeted")
        };
        assert!(agrees, "the two agree: {}", self.states());
    }

    fn assert_one_or_named(&self) {
        if self.nobody_runs() {
            let named = self.source.rebooted || self.destination.rebooted;
            assert!(named, "a tree only ends with its host: {}", self.states());
        }
    }
}

/// What came of an action.
pub(crate) enum Done {
    Input(Box<destination::Input>),
    Nothing,
    Died,
}
