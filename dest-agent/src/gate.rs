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
use std::collections::{BTreeMap, BTreeSet};
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
    present: BTreeSet<u32>,
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
    /// A stream has come. In the lazy phase a new set of streams replaces the one before.
    pub fn join(&self, Bulk { index, of }: Bulk) -> Result<(), GateError> {
        let mut result = Ok(());
        self.now.send_modify(|now| result = now.join(index, of));
        result
    }

    pub fn leave(&self, index: u32) {
        self.now.send_modify(|now| {
            now.present.remove(&index);
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
    pub fn end(&self, index: u32, ended: u32) -> Result<(), GateError> {
        let mut result = Ok(());
        self.now.send_modify(|now| result = now.end(index, ended));
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
    fn join(&mut self, index: u32, of: u32) -> Result<(), GateError> {
        if matches!(self.open, Some(Open::Push(_))) && !self.present.contains(&index) {
            self.streams = Some(of);
            self.ended.remove(&index);
        }
        let ours = *self.streams.get_or_insert(of);
        if ours != of {
            return Err(GateError::Count { ours, theirs: of });
        }
        match self.present.insert(index) {
            true => Ok(()),
            false => Err(GateError::Twice(index)),
        }
    }

    fn lets_in(&self, wanted: u32) -> bool {
        match &self.open {
            None => false,
            Some(Open::Round { round, .. }) => *round == wanted,
            Some(Open::Push(_) | Open::Over) => true,
        }
    }

    fn end(&mut self, index: u32, ended: u32) -> Result<(), GateError> {
        if let Some(Open::Round { round: open, .. }) = self.open
            && open != ended
        {
            return Err(GateError::Round { index, ended, open });
        }
        self.ended.insert(index, ended);
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
    use std::future::Future;
    use std::time::Duration;

    async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(20), future).await.ok()
    }

    fn gate(streams: u32) -> Gate {
        let gate = Gate::default();
        (0..streams).for_each(|index| gate.join(Bulk { index, of: streams }).unwrap());
        gate
    }

    #[tokio::test]
    async fn a_round_is_entered_when_it_is_open_and_not_before() {
        let gate = gate(1);
        assert!(soon(gate.enter(0)).await.is_none());
        gate.open_round(0, Arc::default());
        assert!(matches!(gate.enter(0).await, Open::Round { round: 0, .. }));
        assert!(soon(gate.enter(1)).await.is_none());
        gate.open_round(1, Arc::default());
        assert!(matches!(gate.enter(1).await, Open::Round { round: 1, .. }));
    }

    #[tokio::test]
    async fn a_round_has_landed_when_every_stream_has_ended_it() {
        let gate = gate(2);
        gate.open_round(0, Arc::default());
        gate.end(0, 0).unwrap();
        assert!(soon(gate.landed(0)).await.is_none());
        gate.end(1, 0).unwrap();
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
        gate.join(Bulk { index: 1, of: 2 }).unwrap();
        gate.end(1, 0).unwrap();
        assert!(soon(gate.landed(0)).await.is_none());
    }

    #[tokio::test]
    async fn a_closed_gate_lets_everybody_go_and_stays_closed() {
        let gate = gate(1);
        gate.close();
        gate.open_round(0, Arc::default());
        assert!(matches!(gate.enter(0).await, Open::Over));
        assert!(!gate.landed(0).await);
    }

    #[test]
    fn streams_that_contradict_each_other_are_refused() {
        let gate = gate(2);
        assert_eq!(gate.join(Bulk { index: 1, of: 2 }), Err(GateError::Twice(1)));
        let count = GateError::Count { ours: 2, theirs: 3 };
        assert_eq!(gate.join(Bulk { index: 2, of: 3 }), Err(count));
        gate.open_round(4, Arc::default());
        let round = GateError::Round { index: 0, ended: 3, open: 4 };
        assert_eq!(gate.end(0, 3), Err(round));
    }
}
