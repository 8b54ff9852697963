//! The engine's hot paths on the memory of another process, each beside a yardstick that is
//! measured in the same run. `cargo xtask bench --micro` compares them. As root.

mod copy;
mod fault;
mod fill;
#[path = "../../../protocol/benches/page_stream/processor_time.rs"]
mod processor_time;
mod program;
mod read;
mod scan;
mod zero;

use criterion::Criterion;
use processor_time::ProcessorTime;
use std::time::Duration;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(program::ARGUMENT) {
        return program::run();
    }
    let mut criterion = Criterion::default()
        .with_measurement(ProcessorTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    scan::bench(&mut criterion);
    read::bench(&mut criterion);
    zero::bench(&mut criterion);
    fill::bench(&mut criterion);
    // The last: it leaves us one processor.
    fault::bench(&mut criterion);
    criterion.final_summary();
}
