//! The relay as a program, to be run inside a host: `udp-relay LISTEN TO CONTROL SEED`.

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, listen, to, control, seed] = arguments.as_slice() else {
        bail!("usage: udp-relay LISTEN TO CONTROL SEED");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(tests::relay::serve(
        listen.parse()?,
        to.parse()?,
        control.into(),
        seed.parse()?,
    ))
}
