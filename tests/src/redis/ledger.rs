//! What was written, what was acknowledged, and whether the server still has it.
//!
//! Two sorts of keys: filled ones, whose value follows from the key and never changes, and counters
//! that a writer keeps raising, one command at a time. Of a counter the server must have at least
//! what it acknowledged, and at most what was sent.

use super::{Answer, Connection};
use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How many counters a writer goes round.
pub const COUNTERS: usize = 1000;

const PIPELINE: u64 = 256;

/// Sets `count` keys of `bytes` each.
pub fn fill(connection: &mut Connection, count: u64, bytes: usize) -> Result<()> {
    let mut value = vec![0; bytes];
    for first in (0..count).step_by(usize::try_from(PIPELINE)?) {
        let keys = first..count.min(first + PIPELINE);
        let values: Vec<(String, Vec<u8>)> = keys
            .map(|key| {
                write_value(key, &mut value);
                (format!("filled:{key}"), value.clone())
            })
            .collect();
        connection.pipeline(values.iter().map(|(key, value)| (key.clone(), value.as_slice())))?;
    }
    Ok(())
}

pub fn verify_filled(connection: &mut Connection, count: u64, bytes: usize) -> Result<()> {
    let mut value = vec![0; bytes];
    for key in 0..count {
        write_value(key, &mut value);
        let found = connection.get(&format!("filled:{key}"))?;
        ensure!(found == Answer::Value(value.clone()), "filled:{key} has another value");
    }
    Ok(())
}

/// Looks random, so that a fill of 512 MiB is 512 MiB also to a compressor.
fn write_value(key: u64, value: &mut [u8]) {
    let mut state = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in value.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// The last value of each counter that was sent, and that was acknowledged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    pub sent: Vec<u64>,
    pub acknowledged: Vec<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { sent: vec![0; COUNTERS], acknowledged: vec![0; COUNTERS] }
    }
}

impl Ledger {
    /// Compares every counter with what the server has.
    pub fn verify(&self, connection: &mut Connection) -> Result<()> {
        for counter in 0..self.sent.len() {
            let has = value_of(&connection.get(&counter_key(counter))?)?;
            self.judge(counter, has)?;
        }
        Ok(())
    }

    fn judge(&self, counter: usize, has: u64) -> Result<()> {
        let (least, most) = (self.acknowledged[counter], self.sent[counter]);
        ensure!(has >= least, "{}: {least} was acknowledged, it has {has}", counter_key(counter));
        ensure!(has <= most, "{}: it has {has}, but only {most} was sent", counter_key(counter));
        Ok(())
    }
}

pub fn counter_key(counter: usize) -> String {
    format!("counter:{counter}")
}

fn value_of(answer: &Answer) -> Result<u64> {
    match answer {
        Answer::Nothing => Ok(0),
        Answer::Value(value) => Ok(std::str::from_utf8(value)?.parse()?),
        Answer::Said(said) => bail!("redis answered {said:?} to GET"),
    }
}

/// What a writer has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub acknowledged: u64,
    /// How often the connection was lost, or could not be made.
    pub errors: u64,
    pub reconnects: u64,
    /// The longest time between two acknowledged writes: downtime as this client sees it.
    pub longest_gap_ms: u64,
}

/// Keeps writing, to whichever of its addresses answers.
#[derive(Debug)]
pub struct Writer {
    addresses: Vec<String>,
    address: usize,
    connection: Option<Connection>,
    pub ledger: Ledger,
    pub report: Report,
    acknowledged_at: Option<Instant>,
    counter: usize,
}

/// Before the next attempt to connect: long enough not to be a flood, short beside any downtime.
const RETRY: Duration = Duration::from_millis(2);

impl Writer {
    pub fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            address: 0,
            connection: None,
            ledger: Ledger::default(),
            report: Report::default(),
            acknowledged_at: None,
            counter: 0,
        }
    }

    /// One write, or one attempt to get a connection back.
    pub fn step(&mut self) {
        if self.write().is_ok() {
            return;
        }
        self.report.errors += 1;
        self.connection = None;
        self.address = (self.address + 1) % self.addresses.len();
        std::thread::sleep(RETRY);
    }

    fn write(&mut self) -> Result<()> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.addresses[self.address])?);
            self.report.reconnects += 1;
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let value = self.ledger.sent[self.counter] + 1;
        self.ledger.sent[self.counter] = value;
        connection.set(&counter_key(self.counter), value.to_string().as_bytes())?;
        self.ledger.acknowledged[self.counter] = value;
        self.account();
        self.counter = (self.counter + 1) % COUNTERS;
        Ok(())
    }

    fn account(&mut self) {
        let gap = self.acknowledged_at.map_or(Duration::ZERO, |at| at.elapsed());
        let gap = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        self.report.longest_gap_ms = self.report.longest_gap_ms.max(gap);
        self.report.acknowledged += 1;
        self.acknowledged_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_and_an_invented_one_are_named() {
        let mut ledger = Ledger::default();
        ledger.sent[3] = 8;
        ledger.acknowledged[3] = 7;
        assert!(ledger.judge(3, 7).is_ok() && ledger.judge(3, 8).is_ok());
        let lost = ledger.judge(3, 6).unwrap_err().to_string();
        assert_eq!(lost, "counter:3: 7 was acknowledged, it has 6");
        assert!(ledger.judge(3, 9).is_err());
    }

    #[test]
    fn a_value_follows_from_its_key() {
        let mut values = [[0; 20]; 3];
        for (key, value) in [5, 5, 6].into_iter().zip(&mut values) {
            write_value(key, value);
        }
        assert_eq!(values[0], values[1]);
        assert_ne!(values[0], values[2]);
    }
}
