//! `migrate`: moves a running process tree to another host.

use std::process::ExitCode;

fn main() -> ExitCode {
    source_agent::main()
}
