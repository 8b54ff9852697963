//! What the machine itself did to whoever ran on it: a virtual machine stands still when its host gives
//! it no time, and no program on it can do anything about that (`witness.c`).

use crate::workload;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Real-time threads that watch every processor, until this is dropped.
#[derive(Debug)]
pub struct Witness {
    watching: Child,
    said: File,
}

/// For how long one of them did not run, by the wall clock: microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Pause {
    began_us: u64,
    ended_us: u64,
}

const START_WAIT: Duration = Duration::from_secs(10);

impl Witness {
    pub fn begin() -> Result<Self> {
        let said = tempfile::tempfile().context("make a file for the witness")?;
        let mut command = Command::new(workload::executable("witness")?);
        command.stdin(Stdio::null()).stdout(said.try_clone()?);
        let mut witness = Self { watching: command.spawn().context("start the witness")?, said };
        let began = Instant::now();
        while !witness.read()?.contains("ready") {
            let ended = witness.watching.try_wait()?;
            ensure!(ended.is_none() && began.elapsed() < START_WAIT, "the witness: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(witness)
    }

    /// The longest pause of any processor that lies in this span, as far as it does: microseconds. None of
    /// a millisecond or less is known.
    pub fn longest_us(&mut self, span_us: &Range<u64>) -> Result<u64> {
        longest_us(&self.read()?, span_us)
    }

    fn read(&mut self) -> Result<String> {
        let mut text = String::new();
        self.said.rewind()?;
        self.said.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ended_by_itself = self.watching.kill();
        let _reaped = self.watching.wait();
    }
}

fn longest_us(said: &str, span_us: &Range<u64>) -> Result<u64> {
    let mut longest = 0;
    // The last line may be on its way.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines().filter(|line| *line != "ready") {
        let pause: Pause = serde_json::from_str(line).with_context(|| format!("read {line:?}"))?;
        let (began, ended) = (pause.began_us.max(span_us.start), pause.ended_us.min(span_us.end));
        longest = longest.max(ended.saturating_sub(began));
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn only_what_lies_in_the_span_counts() {
        let said = "ready\n{\"processor\":0,\"began_us\":1000,\"ended_us\":9000}\n\
                    {\"processor\":1,\"began_us\":20000,\"ended_us\":22500}\n{\"proc";
        assert_eq!(longest_us(said, &(0..50_000)).unwrap(), 8000);
        assert_eq!(longest_us(said, &(8000..50_000)).unwrap(), 2500);
        assert_eq!(longest_us(said, &(9000..20_000)).unwrap(), 0);
        assert!(longest_us("nonsense\n", &(0..1)).is_err());
    }

    #[test]
    fn a_machine_that_stands_still_is_noticed() {
        // Nothing here can make the machine stand still; that it is watched can be seen.
        let mut witness = Witness::begin().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let now = u64::try_from(now).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(witness.longest_us(&(now..now + 50_000)).unwrap() <= 50_000);
        assert!(witness.watching.try_wait().unwrap().is_none(), "it watches");
    }
}
