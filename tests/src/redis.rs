//! A small redis client that keeps account of what the server has acknowledged, so that a lost write
//! can be named. Commands are arrays of bulk strings (RESP 2); answers are read to their end.

mod connection;
mod crowd;
mod ledger;
mod running_crowd;
pub mod server;

pub use connection::{Answer, Connection};
pub use crowd::{CrowdReport, run as run_crowd};
pub use ledger::{COUNTERS, Ledger, Report, Writer, counter_key, fill, verify_filled};
pub use running_crowd::RunningCrowd;
