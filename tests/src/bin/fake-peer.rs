//! A fake source or destination as a program, to be run inside a host.

use anyhow::Result;
use clap::Parser;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use tests::peer::{Character, Speech, offer, take_in};

#[derive(Parser)]
enum Arguments {
    /// Takes in whatever comes, and says of itself what it was told to say.
    Destination {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        config: PathBuf,
        #[command(flatten)]
        character: Character,
    },
    /// Offers nothing to a destination, and prints the names of its answers.
    Source {
        host: String,
        #[arg(long)]
        at: SocketAddr,
        #[arg(long)]
        config: PathBuf,
        #[command(flatten)]
        character: Character,
    },
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse() {
        Arguments::Destination { listen, config, character } => {
            runtime.block_on(take_in(listen, &config, character))
        }
        Arguments::Source { host, at, config, character } => {
            let speech = Speech { host: &host, address: at, config: &config };
            let answers = runtime.block_on(offer(&speech, &character))?;
            Ok(writeln!(io::stdout(), "{}", answers.join(" "))?)
        }
    }
}
