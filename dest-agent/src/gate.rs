//! The gate in front of a tree's memory: what the bulk streams carry is let in round by round.
//!
//! Streams run ahead of the control stream. A record of round 3 may be here before the layout of
//! round 3 is; stored then, it would fall into a mapping that does not exist yet. So whoever reads
//! a stream waits here until its round is open, and a round has landed when every stream has met
//! its end record. After the last round the same streams carry what is pushed.

use engine::memory::PAGE_BYTES;
use engine::memory::fill::Filler;
use engine::memory::lazy::LazyMemory;
use protocol::stream::Bulk;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// A stream in a place where it cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("one stream says that there are {theirs} of them, and another said {ours}")]
    Count { ours: u32, theirs: u32 },
    #[error("stream {0} came twice")]
    Twice(u32),
    #[error("stream {index} ends round {ended} while round {open} is open")]
    Round { index: u32, ended: u32, open: u32 },
}

/// A stream that was let in. In the lazy phase a source that has come back brings streams of its
/// own, perhaps long before the connection of the old ones is found to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    index: u32,
    generation: u64,
}

/// What is let in at the moment.
#[derive(Clone, Debug)]
pub enum Open {
    /// Records of this round.
    Round { round: u32, filler: Arc<RwLock<Filler>> },
    /// Pages that are still missing, while the tree runs.
    Push(Arc<LazyMemory>),
    /// Nothing any more.
    Over,
}

#[derive(Debug, Default)]
struct Now {
    open: Option<Open>,
    /// How many streams there are, as soon as the first of them has said so.
    streams: Option<u32>,
    /// By their index, the generation of the streams that count.
    present: BTreeMap<u32, u64>,
    joined: u64,
    /// The round that each stream ended last.
    ended: BTreeMap<u32, u32>,
    /// The round that was opened last.
    last_round: Option<u32>,
}

#[derive(Debug, Default)]
pub struct Gate {
    now: watch::Sender<Now>,
    stored_pages: AtomicU64,
}

impl Gate {
    /// A stream has come. In the lazy phase it replaces the one of its index.
    pub fn join(&self, Bulk { index, of }: Bulk) -> Result<Pass, GateError> {
        let mut result = Err(GateError::Twice(index));
        self.now.send_modify(|now| result = now.join(index, of));
        result
    }

    pub fn leave(&self, pass: Pass) {
        self.now.send_modify(|now| {
            if now.counts(pass) {
                now.present.remove(&pass.index);
            }
        });
    }

    pub fn open_round(&self, round: u32, filler: Arc<RwLock<Filler>>) {
        self.now.send_modify(|now| now.last_round = Some(round));
        self.change(Open::Round { round, filler });
    }

    pub fn open_push(&self, memory: Arc<LazyMemory>) {
        self.change(Open::Push(memory));
    }

    /// Nothing is let in from here on, and whoever waits goes away.
    pub fn close(&self) {
        self.change(Open::Over);
    }

    fn change(&self, open: Open) {
        self.now.send_modify(|now| {
            if !matches!(now.open, Some(Open::Over)) {
                now.open = Some(open);
            }
        });
    }

    pub fn is_over(&self) -> bool {
        matches!(self.now.borrow().open, Some(Open::Over))
    }

    /// Waits until a stream that has come to `round` may go on.
    pub async fn enter(&self, round: u32) -> Open {
        let mut changes = self.now.subscribe();
        let now = changes.wait_for(|now| now.lets_in(round)).await;
        now.ok().and_then(|now| now.open.clone()).unwrap_or(Open::Over)
    }

    /// A stream has stored everything up to its end record of this round.
    pub fn end(&self, pass: Pass, ended: u32) -> Result<(), GateError> {
        let mut result = Ok(());
        self.now.send_modify(|now| result = now.end(pass, ended));
        result
    }

    /// Waits until every stream has ended this round. `false` when it will not come to that.
    pub async fn landed(&self, round: u32) -> bool {
        self.all_ended(|now| now.has_landed(round)).await
    }

    /// Waits until every stream has ended the push. `false` when it will not come to that.
    pub async fn pushed(&self) -> bool {
        self.all_ended(Now::is_pushed).await
    }

    async fn all_ended(&self, ended: impl Fn(&Now) -> bool) -> bool {
        let mut changes = self.now.subscribe();
        let now = changes.wait_for(|now| ended(now) || now.is_over()).await;
        now.is_ok_and(|now| ended(&now))
    }

    /// So many more pages are in their place.
    pub fn count(&self, pages: u64) {
        self.stored_pages.fetch_add(pages, Ordering::Relaxed);
    }

    pub fn stored_pages(&self) -> u64 {
        self.stored_pages.load(Ordering::Relaxed)
    }

    pub fn stored_bytes(&self) -> u64 {
        self.stored_pages() * PAGE_BYTES
    }
}

impl Now {
    fn join(&mut self, index: u32, of: u32) -> Result<Pass, GateError> {
        if matches!(self.open, Some(Open::Push(_))) {
            self.streams = Some(of);
            self.ended.remove(&index);
            self.present.remove(&index);
        }
        let ours = *self.streams.get_or_insert(of);
        if ours != of {
            return Err(GateError::Count { ours, theirs: of });
        }
        if self.present.contains_key(&index) {
            return Err(GateError::Twice(index));
        }
        self.joined += 1;
        let pass = Pass { index, generation: self.joined };
        self.present.insert(index, pass.generation);
        Ok(pass)
    }

    fn counts(&self, pass: Pass) -> bool {
        self.present.get(&pass.index) == Some(&pass.generation)
    }

    fn lets_in(&self, wanted: u32) -> bool {
        match &self.open {
            None => false,
            Some(Open::Round { round, .. }) => *round == wanted,
            Some(Open::Push(_) | Open::Over) => true,
        }
    }

    fn end(&mut self, pass: Pass, ended: u32) -> Result<(), GateError> {
        let index = pass.index;
        if let Some(Open::Round { round: open, .. }) = self.open
            && open != ended
        {
            return Err(GateError::Round { index, ended, open });
        }
        if self.counts(pass) {
            self.ended.insert(index, ended);
        }
        Ok(())
    }

    fn has_landed(&self, wanted: u32) -> bool {
        match self.open {
            Some(Open::Round { round, .. }) if round == wanted => self.all_at(wanted),
            _ => false,
        }
    }

    /// The push is a round of its own, after the last one.
    fn is_pushed(&self) -> bool {
        let last = self.ended.values().max().copied();
        matches!(self.open, Some(Open::Push(_)))
            && self.last_round.is_none_or(|round| last > Some(round))
            && last.is_some_and(|last| self.all_at(last))
    }

    fn all_at(&self, round: u32) -> bool {
        let ended = |index| self.ended.get(&index) == Some(&round);
        self.streams.is_some_and(|streams| (0..streams).all(ended))
    }

    fn is_over(&self) -> bool {
        matches!(self.open, Some(Open::Over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::memory::lazy::PageSource;
    use std::future::Future;
    use std::time::Duration;

    async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(20), future).await.ok()
    }

    fn gate(streams: u32) -> (Gate, Vec<Pass>) {
        let gate = Gate::default();
        let join = |index| gate.join(Bulk { index, of: streams }).unwrap();
        let passes = (0..streams).map(join).collect();
        (gate, passes)
    }

    #[tokio::test]
    async fn a_round_is_entered_when_it_is_open_and_not_before() {
        let (gate, _) = gate(1);
        assert!(soon(gate.enter(0)).await.is_none());
        gate.open_round(0, Arc::default());
        assert!(matches!(gate.enter(0).await, Open::Round { round: 0, .. }));
        assert!(soon(gate.enter(1)).await.is_none());
        gate.open_round(1, Arc::default());
        assert!(matches!(gate.enter(1).await, Open::Round { round: 1, .. }));
    }

    #[tokio::test]
    async fn a_round_has_landed_when_every_stream_has_ended_it() {
        let (gate, passes) = gate(2);
        gate.open_round(0, Arc::default());
        gate.end(passes[0], 0).unwrap();
        assert!(soon(gate.landed(0)).await.is_none());
        gate.end(passes[1], 0).unwrap();
        assert!(gate.landed(0).await);
        assert!(soon(gate.landed(1)).await.is_none(), "it is not open yet");
        gate.open_round(1, Arc::default());
        assert!(soon(gate.landed(1)).await.is_none(), "the ends of the round before do not count");
    }

    #[tokio::test]
    async fn a_round_whose_streams_have_not_come_has_not_landed() {
        let gate = Gate::default();
        gate.open_round(0, Arc::default());
        assert!(soon(gate.landed(0)).await.is_none());
        let pass = gate.join(Bulk { index: 1, of: 2 }).unwrap();
        gate.end(pass, 0).unwrap();
        assert!(soon(gate.landed(0)).await.is_none());
    }

    #[tokio::test]
    async fn a_closed_gate_lets_everybody_go_and_stays_closed() {
        let (gate, _) = gate(1);
        gate.close();
        gate.open_round(0, Arc::default());
        assert!(matches!(gate.enter(0).await, Open::Over));
        assert!(!gate.landed(0).await);
    }

    #[test]
    fn streams_that_contradict_each_other_are_refused() {
        let (gate, passes) = gate(2);
        assert_eq!(gate.join(Bulk { index: 1, of: 2 }), Err(GateError::Twice(1)));
        let count = GateError::Count { ours: 2, theirs: 3 };
        assert_eq!(gate.join(Bulk { index: 2, of: 3 }), Err(count));
        gate.open_round(4, Arc::default());
        let round = GateError::Round { index: 0, ended: 3, open: 4 };
        assert_eq!(gate.end(passes[0], 3), Err(round));
    }

    struct Nowhere;

    impl PageSource for Nowhere {
        fn request(&self, _space: u32, _address: u64, _pages: u32) {}
    }

    #[test]
    fn in_the_lazy_phase_a_stream_replaces_one_that_has_not_been_missed_yet() {
        let mut now = Now::default();
        let old = [now.join(0, 2).unwrap(), now.join(1, 2).unwrap()];
        assert_eq!(now.join(0, 2), Err(GateError::Twice(0)));
        let nothing = LazyMemory::start(Vec::new(), Arc::new(Nowhere), None).unwrap();
        now.open = Some(Open::Push(Arc::new(nothing)));
        let new = now.join(0, 1).unwrap();
        assert!(now.counts(new) && !now.counts(old[0]));
        now.end(old[0], 7).unwrap();
        assert!(!now.is_pushed(), "the end of one that is replaced says nothing");
        now.end(new, 7).unwrap();
        assert!(now.is_pushed());
    }
}
