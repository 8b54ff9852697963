//! Two hosts and the lines between them: whatever can happen next, one thing at a time.

use crate::broken::{Broken, broken, holds};
use crate::destination_host::{self, DestinationHost, Link};
use crate::line::{Arrival, Lines};
use crate::memory::Touch;
use crate::mistake::Mistake;
use crate::random::Random;
use crate::source_host::{self, SourceHost};
use crate::story::Story;
use protocol::{Lazy, Message, MigrationId, destination, source};
use std::collections::VecDeque;
use std::time::Duration;

pub(crate) const ID: MigrationId = MigrationId { high: 1, low: 2 };

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) story: Story,
    pub(crate) source: SourceHost,
    pub(crate) destination: DestinationHost,
    pub(crate) lines: Lines,
    /// Misfortunes come together: whoever could not write a line will not write the next one.
    unlucky: bool,
    it_ran: bool,
    pub(crate) seen: Seen,
    /// What happened, for whoever wants to read it.
    pub(crate) log: Option<Vec<String>>,
}

/// Without which a simulation proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) crashes: u32,
    pub(crate) doubted: bool,
    pub(crate) starved: bool,
    pub(crate) waited_for_a_page: bool,
    /// Two lines at once, or something late of an old one.
    pub(crate) double: bool,
    pub(crate) resolved: bool,
    /// Somebody waited in vain while a line was being written.
    pub(crate) slow: bool,
}

/// Something that can happen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    SourceActs,
    SourceIsAnswered,
    SourceNotices,
    SourceHangsUp,
    SourceHears(u32),
    DestinationActs,
    DestinationIsAnswered,
    DestinationNotices,
    DestinationHears(u32),
    PageIsPushed,
    PageArrives(u32),
    FaultIsAnswered(u32),
    AllIsFilled,
}

impl World {
    pub(crate) fn new(seed: u64, story: Story, mistake: Option<Mistake>) -> Self {
        let mut random = Random::new(seed);
        let any = [Lazy::Auto, Lazy::Always, Lazy::Never][random.index(3)];
        let (source, first_words) = SourceHost::new(story.lazy.unwrap_or(any), mistake);
        let mut world = Self {
            random,
            story,
            source,
            destination: DestinationHost::new(mistake),
            lines: Lines::default(),
            unlucky: false,
            it_ran: false,
            seen: Seen::default(),
            log: None,
        };
        world.source.line = Some(world.lines.open());
        world.source_says(first_words);
        world
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(what());
        }
    }

    pub(crate) fn states(&self) -> String {
        format!("{} / {}", self.source.state_name(), self.destination.state_name())
    }

    /// One thing happens. `false` when nothing can.
    pub(crate) fn step(&mut self, troubled: bool) -> Result<bool, Broken> {
        let events = self.events();
        if events.is_empty() {
            return Ok(false);
        }
        let event = events[self.random.index(events.len())];
        self.happen(event, troubled)?;
        self.look()?;
        Ok(true)
    }

    fn events(&self) -> Vec<Event> {
        let (source, destination) = (&self.source, &self.destination);
        let mut events = Vec::with_capacity(16);
        let mut may = |is_possible: bool, event| {
            if is_possible {
                events.push(event);
            }
        };
        may(source.has_work(), Event::SourceActs);
        may(source.has_answers(), Event::SourceIsAnswered);
        may(destination.has_work(), Event::DestinationActs);
        may(destination.has_answers(), Event::DestinationIsAnswered);
        may(destination.is_filled(), Event::AllIsFilled);
        let whole = self.lines.is_whole(source.line);
        may(source.line.is_some() && !whole, Event::SourceNotices);
        let is_done = source.is_final() && !source.has_work() && !source.has_answers();
        let said = self.lines.iter().all(|line| line.to_destination.is_empty());
        may(whole && is_done && said, Event::SourceHangsUp);
        may(whole && source.has_pages_to_push(), Event::PageIsPushed);
        let link = destination.link.map(|link| link.number);
        may(link.is_some() && !self.lines.is_whole(link), Event::DestinationNotices);
        for line in self.lines.iter() {
            let number = line.number;
            may(!line.to_source.is_empty(), Event::SourceHears(number));
            may(!line.to_destination.is_empty(), Event::DestinationHears(number));
            let admitted = line.records.front().is_some_and(|record| destination.takes(record));
            may(admitted, Event::PageArrives(number));
            let served = source.line == Some(number) && source.answers_faults();
            may(served && !line.faults.is_empty(), Event::FaultIsAnswered(number));
        }
        events
    }

    fn happen(&mut self, event: Event, troubled: bool) -> Result<(), Broken> {
        match event {
            Event::SourceActs => self.source_acts(troubled),
            Event::DestinationActs => self.destination_acts(troubled),
            Event::SourceIsAnswered => {
                let answer = self.source.next_answer();
                answer.map_or(Ok(()), |input| self.feed_source(input))
            }
            Event::DestinationIsAnswered => {
                let answer = self.destination.next_answer();
                answer.map_or(Ok(()), |input| self.feed_destination(input))
            }
            Event::SourceNotices => self.source_loses_its_line(),
            Event::SourceHangsUp => {
                self.leave_source();
                Ok(())
            }
            Event::DestinationNotices => self.destination_loses_its_link("the line is cut"),
            Event::SourceHears(line) => self.source_hears(line),
            Event::DestinationHears(line) => self.destination_hears(line),
            Event::PageIsPushed => {
                if let Some(record) = self.source.push()
                    && let Some(line) = self.lines.whole(self.source.line)
                {
                    line.records.push_back(record);
                }
                Ok(())
            }
            Event::PageArrives(line) => self.page_arrives(line),
            Event::FaultIsAnswered(line) => self.fault_is_answered(line),
            Event::AllIsFilled => {
                let filled = self.destination.filled();
                self.feed_destination(filled)
            }
        }
    }

    /// What must hold after every step, and what the tree does in between.
    fn look(&mut self) -> Result<(), Broken> {
        if self.destination.runs() && !self.it_ran {
            self.it_ran = true;
            self.destination.memory.begins(self.source.memory.all());
        }
        self.seen.doubted |= self.source.state_name() == "InDoubt";
        self.seen.starved |= self.destination.state_name() == "Starving";
        self.lines.tidy(self.source.line, self.destination.link.map(|link| link.number));
        self.seen.double |= self.lines.iter().count() > 1;
        holds(!(self.source.runs() && self.destination.runs()), || "two copies run".into())?;
        if self.source.runs() && self.random.one_in(4) {
            self.source.memory.write(&mut self.random);
        }
        if self.destination.runs() && self.random.one_in(4) {
            self.touch()?;
        }
        self.sync_sometimes();
        Ok(())
    }

    fn sync_sometimes(&mut self) {
        match self.random.below(16) {
            0 => self.source.journal.sync(),
            1 => self.destination.journal.sync(),
            _ => {}
        }
    }

    fn touch(&mut self) -> Result<(), Broken> {
        match self.destination.memory.touch(&mut self.random) {
            Touch::Right => Ok(()),
            Touch::Waits(page) => {
                self.seen.waited_for_a_page = true;
                self.ask_for(&[page]);
                Ok(())
            }
            Touch::Wrong { page, read, written } => {
                broken(format!("page {page} was read as {read}, and {written} was written"))
            }
        }
    }

    fn ask_for(&mut self, pages: &[usize]) {
        let link = self.destination.link.filter(|link| link.has_spoken);
        let Some(line) = self.lines.whole(link.map(|link| link.number)) else { return };
        for page in pages {
            if !line.faults.contains(page) {
                line.faults.push_back(*page);
            }
        }
    }

    pub(crate) fn feed_source(&mut self, input: source::Input) -> Result<(), Broken> {
        let state = self.source.state_name();
        self.say(|| format!("source {state} <- {input:?}"));
        let said = self.source.feed(input)?;
        self.source_says(said);
        Ok(())
    }

    /// Dropped when there is no line: whoever missed it asks again.
    fn source_says(&mut self, said: VecDeque<Message>) {
        if let Some(line) = self.lines.whole(self.source.line) {
            line.to_destination.extend(said.into_iter().map(Arrival::Said));
        }
    }

    pub(crate) fn feed_destination(&mut self, input: destination::Input) -> Result<(), Broken> {
        let state = self.destination.state_name();
        self.say(|| format!("destination {state} <- {input:?}"));
        let said = self.destination.feed(input)?;
        let link = self.destination.link.filter(|link| link.has_spoken);
        if let Some(line) = self.lines.whole(link.map(|link| link.number)) {
            line.to_source.extend(said);
        }
        Ok(())
    }

    /// What comes of a line that is not the present one is not for the machine.
    fn source_hears(&mut self, number: u32) -> Result<(), Broken> {
        let message = self.lines.find(number).and_then(|line| line.to_source.pop_front());
        match message {
            Some(message) if self.source.line == Some(number) => {
                self.feed_source(source::Input::Message(message))
            }
            _ => Ok(()),
        }
    }

    fn destination_hears(&mut self, number: u32) -> Result<(), Broken> {
        let arrival = self.lines.find(number).and_then(|line| line.to_destination.pop_front());
        match (arrival, &mut self.destination.link) {
            (Some(Arrival::Opened), _) => self.line_is_opened(number),
            (Some(Arrival::Said(message)), Some(link)) if link.number == number => {
                link.has_spoken = true;
                self.feed_destination(destination::Input::Message(message))
            }
            _ => Ok(()),
        }
    }

    /// A new line replaces the one before, which is ended, and its end is told first. A migration
    /// that was over and had nobody on the line is found by its journal.
    fn line_is_opened(&mut self, number: u32) -> Result<(), Broken> {
        self.say(|| format!("line {number} opens at the destination"));
        let old = self.destination.link.replace(Link { number, has_spoken: false });
        if let Some(old) = old {
            self.lines.cut(old.number, &mut self.random);
            let cause = "the source has come back".into();
            return self.feed_destination(destination::Input::Disconnected { cause });
        }
        let over = ["Complete", "Done", "Declined", "Discarded", "Listening", "Lost"];
        if over.contains(&self.destination.state_name()) && !self.destination.has_work() {
            self.destination.begin_again()?;
        }
        Ok(())
    }

    fn source_loses_its_line(&mut self) -> Result<(), Broken> {
        self.source.loses_its_line();
        self.feed_source(source::Input::Disconnected { cause: "the line is cut".into() })
    }

    fn destination_loses_its_link(&mut self, cause: &str) -> Result<(), Broken> {
        self.destination.link = None;
        self.feed_destination(destination::Input::Disconnected { cause: cause.into() })
    }

    fn source_acts(&mut self, troubled: bool) -> Result<(), Broken> {
        let Some(action) = self.source.next_action(&mut self.random) else { return Ok(()) };
        self.say(|| format!("source does {action:?}"));
        if action == source::Action::Reap && !self.destination.was_complete {
            return broken("the original was ended while pages were missing");
        }
        let trouble = self.strikes(troubled);
        match self.source.perform(action, trouble, &mut self.random)? {
            source_host::Done::Answered => Ok(()),
            source_host::Done::Died => self.source_dies(),
            source_host::Done::Dials => self.dial(troubled),
            source_host::Done::Sends(records) => {
                if let Some(line) = self.lines.whole(self.source.line) {
                    line.records.extend(records);
                }
                Ok(())
            }
        }
    }

    fn destination_acts(&mut self, troubled: bool) -> Result<(), Broken> {
        let Some(action) = self.destination.next_action() else { return Ok(()) };
        self.say(|| format!("destination does {action:?}"));
        let trouble = self.strikes(troubled);
        match self.destination.perform(action, trouble, &mut self.random)? {
            destination_host::Done::Answered => Ok(()),
            destination_host::Done::Died => self.destination_dies(),
        }
    }

    fn strikes(&mut self, troubled: bool) -> bool {
        let one_in = if self.unlucky { 2 } else { 25 };
        self.unlucky = troubled && self.random.one_in(one_in);
        self.unlucky
    }

    /// The line before is left; whether the destination knows that already is another matter.
    fn dial(&mut self, troubled: bool) -> Result<(), Broken> {
        if let Some(old) = self.source.line {
            self.lines.cut(old, &mut self.random);
        }
        self.source.loses_its_line();
        if troubled && self.random.one_in(3) {
            let cause = "nobody answers".into();
            return self.feed_source(source::Input::Disconnected { cause });
        }
        let line = self.lines.open();
        self.source.line = Some(line);
        self.say(|| format!("line {line} is made"));
        self.feed_source(source::Input::Reconnected)
    }

    fn page_arrives(&mut self, number: u32) -> Result<(), Broken> {
        let Some(line) = self.lines.find(number) else { return Ok(()) };
        if let Some(record) = line.records.pop_front() {
            self.destination.take_record(record);
        }
        let nothing_follows = line_is_empty(&mut self.lines, number);
        if nothing_follows && std::mem::take(&mut self.destination.asks_for_the_rest) {
            let missing: Vec<usize> = self.destination.memory.missing().collect();
            self.ask_for(&missing);
        }
        Ok(())
    }

    fn fault_is_answered(&mut self, number: u32) -> Result<(), Broken> {
        let Some(line) = self.lines.find(number) else { return Ok(()) };
        if let Some(page) = line.faults.pop_front() {
            let record = self.source.pushed(page);
            line.records.push_front(record);
        }
        Ok(())
    }

    pub(crate) fn source_dies(&mut self) -> Result<(), Broken> {
        self.seen.crashes += 1;
        self.say(|| "the source's agent dies, and another comes".into());
        self.leave_source();
        self.source.restart()
    }

    pub(crate) fn destination_dies(&mut self) -> Result<(), Broken> {
        self.seen.crashes += 1;
        self.say(|| "the destination's agent dies, and another comes".into());
        self.leave_destination();
        self.destination.restart()
    }

    pub(crate) fn leave_source(&mut self) {
        self.lines.cut_all(&mut self.random);
        self.lines.forget_what_goes_to_source();
    }

    pub(crate) fn leave_destination(&mut self) {
        self.lines.cut_all(&mut self.random);
        self.lines.forget_what_goes_to_destination();
    }

    /// Nothing can happen but that somebody has waited for long enough, and slow disks with him.
    pub(crate) fn time_passes(&mut self) -> Result<bool, Broken> {
        let (here, there) = (self.source.patience_left(), self.destination.patience_left());
        let slow = [self.source.journal.catches_up(), self.destination.journal.catches_up()];
        self.seen.slow |= slow.contains(&true);
        let Some(passed) = here.into_iter().chain(there).min() else {
            return Ok(slow.contains(&true));
        };
        self.source.waited += passed;
        self.destination.waits(passed);
        if self.source.patience_left() == Some(Duration::ZERO) {
            self.feed_source(source::Input::TimedOut)?;
        } else {
            let tired = self.destination.tired();
            self.feed_destination(tired)?;
        }
        self.look()?;
        Ok(true)
    }

    /// The next action of the source fails, whatever it is.
    pub(crate) fn source_fails(&mut self) -> Result<(), Broken> {
        self.unlucky = true;
        self.source_acts(true)
    }

    pub(crate) fn destination_fails(&mut self) -> Result<(), Broken> {
        self.unlucky = true;
        self.destination_acts(true)
    }
}

fn line_is_empty(lines: &mut Lines, number: u32) -> bool {
    lines.find(number).is_none_or(|line| line.records.is_empty())
}
