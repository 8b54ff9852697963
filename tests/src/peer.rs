//! The other end of the line, as it should not be: a host of another version or with another CPU,
//! one that answers late, one that dies in mid-sentence. It speaks the real link and the real
//! messages to the real programs; only what it says of itself, and when, is made up.

mod character;
mod destination;
mod source;
mod talk;

pub use character::Character;
pub use destination::take_in;
pub use source::{Speech, offer};
pub use talk::Talk;

use crate::hosts::{CONFIG, Host, Started};
use crate::{place, wait};
use anyhow::{Result, bail};
use std::fs;

/// A fake destination that runs on a host, in the place of `dest-agent`.
#[derive(Debug)]
pub struct FakeDestination {
    program: Started,
}

impl FakeDestination {
    /// `character` is as `fake-peer destination --help` has it.
    pub fn start(host: &Host, character: &[&str]) -> Result<Self> {
        let (program, listen) =
            (place::program("fake-peer")?, format!("{}:7747", host.address().v4));
        let mut argv = vec![&*program, "destination", "--config", CONFIG, "--listen", &listen];
        argv.extend(character);
        let fake = Self { program: host.spawn(&argv)? };
        fake.says(host, "listening")?;
        Ok(fake)
    }

    /// Waits until the fake has heard a message of this name.
    pub fn hears(&self, host: &Host, message: &str) -> Result<()> {
        self.says(host, &format!("heard {message}"))
    }

    fn says(&self, host: &Host, line: &str) -> Result<()> {
        wait::until(
            wait::PATIENCE,
            || format!("{line:?} from the fake destination: {:?}", self.said()),
            || {
                if self.said()?.lines().any(|said| said == line) {
                    return Ok(Some(()));
                }
                if !host.exists(self.program.pid) {
                    bail!("it ended: {}", fs::read_to_string(&self.program.stderr)?);
                }
                Ok(None)
            },
        )
    }

    /// One line for each message that it has heard.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.program.stdout)?)
    }
}
