//! What a destination needs to start copies of a tree from an image that a source has sent: the same
//! restore as that of `migrate clone`, in a process that is the first of a PID namespace.

use crate::cli::Restore;
use crate::ending::Ending;
use crate::restore::{bring_back, stay};
use crate::run::runtime;
use crate::signals::Signals;
use anyhow::Result;
use protocol::Refusal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

pub use crate::attempt::new_id;
pub use crate::duplicate::line::{Line, LineError, PAYLOAD_BYTES_MAX};
pub use crate::home::{Home, clear_away_what_was_left};
pub use crate::restore::admission::Admission;
pub use crate::restore::seclusion::{enter, outside, spawn};

/// What became of a copy.
#[derive(Debug)]
pub enum Begun {
    /// With the id that its first process has in its namespace.
    Runs {
        pid: i32,
        missing_pages: u64,
    },
    /// It runs, and has every page.
    Whole,
    Refused(Vec<Refusal>),
    /// What was being done, and every cause.
    Failed(Vec<String>),
}

/// Starts the copy in this process, which has entered its namespaces, and stays until the copy has
/// ended. `tell` hears when it runs and when it is whole, or why it does not.
pub fn start(
    directory: PathBuf,
    state: PathBuf,
    admission: Arc<dyn Admission>,
    tell: impl Fn(Begun),
) -> Result<ExitCode> {
    runtime()?.block_on(async {
        let signals = Signals::watch()?;
        match bring_back(Restore::of_stranger(directory, state), admission).await? {
            Ok(running) => {
                let (pid, missing_pages) = (running.pid, running.missing_pages);
                tell(Begun::Runs { pid, missing_pages });
                stay(running, Some(signals), || tell(Begun::Whole)).await
            }
            Err(ending) => {
                let code = ending.code();
                tell(begun(ending));
                Ok(code.into())
            }
        }
    })
}

fn begun(ending: Ending) -> Begun {
    match ending {
        Ending::Refused(refusals) => Begun::Refused(refusals),
        ending => Begun::Failed(ending.chain()),
    }
}
