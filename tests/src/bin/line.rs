//! The bad line as a program, to be run inside a host: `line LEFT RIGHT DELAY_MS LOSS_PERMILLE SEED`.

use anyhow::{Result, bail};
use tests::relay::Conditions;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, left, right, delay_ms, loss_permille, seed] = arguments.as_slice() else {
        bail!("usage: line LEFT RIGHT DELAY_MS LOSS_PERMILLE SEED");
    };
    let (delay_ms, loss_permille) = (delay_ms.parse()?, loss_permille.parse()?);
    let conditions = Conditions { delay_ms, loss_permille, ..Conditions::default() };
    tests::line::join(left, right, &conditions, seed.parse()?)
}
