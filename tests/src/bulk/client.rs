//! The client's side.

use super::Pattern;
use super::pattern::PIECE;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Download,
    Upload,
}

impl Direction {
    fn wish(self) -> u8 {
        match self {
            Self::Download => b'd',
            Self::Upload => b'u',
        }
    }

    pub(super) fn of_wish(wish: u8) -> Option<Self> {
        [Self::Download, Self::Upload].into_iter().find(|direction| direction.wish() == wish)
    }
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// That were checked, or that the server took.
    pub bytes: u64,
    /// The longest time in which nothing passed, in microseconds.
    pub longest_pause_us: u64,
    /// The server has sent, or received, exactly what this side has received or sent.
    pub is_complete: bool,
}

/// Longer than every retransmission that a freeze of some 100 ms and a bad line can cost.
const PATIENCE: Duration = Duration::from_secs(30);

const REPORT_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Client<R> {
    connection: TcpStream,
    pattern: Pattern,
    /// After every piece.
    pause: Duration,
    longest_pause: Duration,
    passed_at: Instant,
    reported_at: Instant,
    report: R,
}

impl<R: FnMut(Report) -> Result<()>> Client<R> {
    pub fn connect(server: &str, report: R) -> Result<Self> {
        let connection = TcpStream::connect(server).with_context(|| format!("reach {server}"))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        let now = Instant::now();
        let longest_pause = Duration::ZERO;
        let pattern = Pattern::new();
        let pause = Duration::ZERO;
        Ok(Self {
            connection,
            pattern,
            pause,
            longest_pause,
            passed_at: now,
            reported_at: now,
            report,
        })
    }

    /// Rests so long after every piece.
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Carries bytes until `is_over`, and looks at whether all of them arrived.
    pub fn run(mut self, direction: Direction, is_over: &AtomicBool) -> Result<()> {
        self.connection.write_all(&[direction.wish()]).context("say what is wanted")?;
        match direction {
            Direction::Download => self.download(is_over)?,
            Direction::Upload => self.upload(is_over)?,
        }
        let report = self.so_far(true);
        (self.report)(report)
    }

    /// The last eight bytes say how many came before them.
    fn download(&mut self, is_over: &AtomicBool) -> Result<()> {
        let (mut buffer, mut held) = (vec![0; PIECE], 0);
        let mut has_closed = false;
        loop {
            if is_over.load(Ordering::Relaxed) && !has_closed {
                self.connection.shutdown(Shutdown::Write).context("close our side")?;
                has_closed = true;
            }
            let length = self.connection.read(&mut buffer[held..]).context("receive")?;
            if length == 0 {
                break;
            }
            held += length;
            let sure = held.saturating_sub(8);
            self.pattern.check(&buffer[..sure])?;
            buffer.copy_within(sure..held, 0);
            held -= sure;
            self.passed()?;
        }
        ensure!(has_closed, "the server has closed first");
        ensure!(held == 8, "the stream ends in mid-way");
        self.agrees(&buffer[..8])
    }

    fn upload(&mut self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let sent = self.connection.write(self.pattern.next_piece()).context("send")?;
            self.pattern.advance(sent);
            self.passed()?;
        }
        self.connection.shutdown(Shutdown::Write).context("close our side")?;
        let mut count = [0; 8];
        self.connection.read_exact(&mut count).context("hear how much has come")?;
        ensure!(self.connection.read(&mut [0])? == 0, "the server says more than it should");
        self.agrees(&count)
    }

    fn agrees(&self, count: &[u8]) -> Result<()> {
        let count = u64::from_le_bytes(count.try_into()?);
        let position = self.pattern.position();
        ensure!(count == position, "the server says {count} bytes, and here were {position}");
        Ok(())
    }

    fn passed(&mut self) -> Result<()> {
        if !self.pause.is_zero() {
            thread::sleep(self.pause);
        }
        let now = Instant::now();
        self.longest_pause = self.longest_pause.max(now - self.passed_at);
        self.passed_at = now;
        if now - self.reported_at >= REPORT_INTERVAL {
            self.reported_at = now;
            let report = self.so_far(false);
            self.longest_pause = Duration::ZERO;
            (self.report)(report)?;
        }
        Ok(())
    }

    fn so_far(&self, is_complete: bool) -> Report {
        let longest_pause_us = u64::try_from(self.longest_pause.as_micros()).unwrap_or(u64::MAX);
        Report { bytes: self.pattern.position(), longest_pause_us, is_complete }
    }
}
