//! The lines between the two hosts: the one that both mean, and older ones that are not yet empty.
//!
//! A line that was cut still delivers a part of what was on its way. Lines overtake each other, so
//! an old one may be opened at the destination after the one that replaced it.

use crate::memory::Record;
use crate::random::Random;
use protocol::Message;
use std::collections::VecDeque;

/// What arrives at the destination on the control stream.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few of them")]
pub(crate) enum Arrival {
    Opened,
    Said(Message),
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u32,
    pub(crate) to_source: VecDeque<Message>,
    pub(crate) to_destination: VecDeque<Arrival>,
    /// Pages, on streams of their own.
    pub(crate) records: VecDeque<Record>,
    /// Pages that the tree waits for, on a connection of their own.
    pub(crate) faults: VecDeque<usize>,
    pub(crate) is_cut: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    pub(crate) made: u32,
}

impl Lines {
    pub(crate) fn open(&mut self) -> u32 {
        self.made += 1;
        self.lines.push(Line {
            number: self.made,
            to_source: VecDeque::new(),
            to_destination: VecDeque::from([Arrival::Opened]),
            records: VecDeque::new(),
            faults: VecDeque::new(),
            is_cut: false,
        });
        self.made
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// `None` when it is gone, with everything that was on it.
    pub(crate) fn find(&mut self, number: u32) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.number == number)
    }

    /// A line that takes what is put on it.
    pub(crate) fn whole(&mut self, number: Option<u32>) -> Option<&mut Line> {
        self.find(number?).filter(|line| !line.is_cut)
    }

    pub(crate) fn is_whole(&self, number: Option<u32>) -> bool {
        self.lines.iter().any(|line| Some(line.number) == number && !line.is_cut)
    }

    /// The first part of everything still arrives, however late.
    pub(crate) fn cut(&mut self, number: u32, random: &mut Random) {
        let Some(line) = self.find(number) else { return };
        line.is_cut = true;
        line.faults.clear();
        shorten(&mut line.to_source, random);
        shorten(&mut line.to_destination, random);
        shorten(&mut line.records, random);
    }

    pub(crate) fn cut_all(&mut self, random: &mut Random) {
        (1..=self.made).for_each(|number| self.cut(number, random));
    }

    /// Nobody is left who would read what arrives.
    pub(crate) fn forget_what_goes_to_destination(&mut self) {
        for line in &mut self.lines {
            line.to_destination.clear();
            line.records.clear();
        }
    }

    pub(crate) fn forget_what_goes_to_source(&mut self) {
        self.lines.iter_mut().for_each(|line| line.to_source.clear());
    }

    /// Lines that are cut and empty, except those that someone still takes for whole.
    pub(crate) fn tidy(&mut self, source: Option<u32>, destination: Option<u32>) {
        self.lines.retain(|line| {
            let number = Some(line.number);
            !line.is_cut || number == source || number == destination || !line.is_empty()
        });
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.to_source.is_empty() && self.to_destination.is_empty() && self.records.is_empty()
    }
}

fn shorten<T>(queue: &mut VecDeque<T>, random: &mut Random) {
    let kept = random.index(queue.len() + 1);
    queue.truncate(kept);
}
