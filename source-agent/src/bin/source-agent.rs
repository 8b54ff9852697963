//! `source-agent`: gives trees away for whoever may ask on its control socket.

use std::process::ExitCode;

fn main() -> ExitCode {
    source_agent::serve()
}
