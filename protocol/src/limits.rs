//! Every bound and every wait of the conversation.
//!
//! Nothing that the other host says makes this host allocate, loop or wait without one of these.
//! They are asserted against each other at the end, so that changing one cannot quietly make
//! another unreachable.

use std::time::Duration;

/// The unit in which memory travels. Hosts with larger pages say so in `Hello` and are refused.
pub const PAGE_BYTES: usize = 4096;

/// A frame of the control stream, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// What one frame carries of an inventory, a layout, an image or a list of missing pages.
pub const PART_BYTES_MAX: usize = 256 << 10;
pub const INVENTORY_BYTES_MAX: usize = 16 << 20;
pub const LAYOUT_BYTES_MAX: usize = 16 << 20;
/// Held whole in memory on both sides, and both agents promise to stay below 100 MiB.
pub const IMAGE_BYTES_MAX: usize = 32 << 20;
pub const MISSING_BYTES_MAX: usize = 16 << 20;
/// A frame of the connection that faults travel on.
pub const FAULT_FRAME_BYTES_MAX: usize = 4 << 10;

/// One name, object, reason or cause.
pub const TEXT_BYTES_MAX: usize = 1 << 10;
pub const REFUSALS_MAX: usize = 256;
/// Kinds, aspects, and features of a host, each.
pub const NAMES_MAX: usize = 512;
pub const CAUSES_MAX: usize = 32;
pub const TIMINGS_MAX: usize = 256;
pub const STREAMS_MAX: u32 = 16;
pub const ROUNDS_MAX: u32 = 100;
/// Copies of a tree that are started by one command.
pub const COPIES_MAX: u32 = 1000;
/// Of each file of an image but its pages, which are bounded by the disk that they go to.
pub const IMAGE_PART_BYTES_MAX: u64 = 1 << 30;
/// Address spaces and shared objects of one tree, counted together.
pub const SPACES_MAX: u32 = 1 << 16;

/// Pages of bytes in one record: 64 KiB, where zstd finds most of what there is to find.
pub const DATA_PAGES_MAX: u32 = 16;
/// Neighbouring pages that always travel on the same stream: 2 MiB, one huge page.
pub const SLICE_PAGES: u32 = 512;
/// Pages of a run that carries no bytes. A run stays inside one slice.
pub const RUN_PAGES_MAX: u32 = SLICE_PAGES;
/// Pages asked for by one fault, with those around it.
pub const FAULT_PAGES_MAX: u32 = 64;

/// How often thawing, running or writing to the journal is tried before an operator is asked.
pub const ATTEMPTS_MAX: u32 = 3;

/// For the first word of the other side.
pub const HELLO_WAIT: Duration = Duration::from_secs(10);
/// For the offer; the source makes its inventory meanwhile.
pub const OFFER_WAIT: Duration = Duration::from_secs(120);
/// For the judgement of an offer; the destination may have to hash executables.
pub const ACCEPT_WAIT: Duration = Duration::from_secs(120);
/// For the shell to be built, and on the destination for its layout to come.
pub const STAGE_WAIT: Duration = Duration::from_secs(120);
/// Without any progress of a round.
pub const ROUND_WAIT: Duration = Duration::from_secs(60);
/// Between two rounds, at most.
pub const PAUSE_MAX: Duration = Duration::from_secs(2);
/// For the destination to be ready. The tree stands still meanwhile, and goes on here after it.
pub const READY_WAIT: Duration = Duration::from_secs(30);
/// For the permit, once ready.
pub const HANDOVER_WAIT: Duration = Duration::from_secs(30);
/// For the decision on a permit. After it the source is in doubt and asks.
pub const DECISION_WAIT: Duration = Duration::from_secs(5);
/// Between two attempts to reach the other side again.
pub const RECONNECT_WAIT: Duration = Duration::from_secs(2);
/// For the image of a tree whose copies were accepted: it is dumped meanwhile, whatever its size, and a
/// source that dies is noticed by the link.
pub const DUMP_WAIT: Duration = Duration::from_hours(6);
/// For the next bytes of an image.
pub const PART_WAIT: Duration = Duration::from_secs(60);
/// For a copy to be built from an image that is there.
pub const COPY_WAIT: Duration = Duration::from_secs(120);
/// Without a word in the lazy phase. After it the source asks how things are.
pub const LAZY_WAIT: Duration = Duration::from_secs(15);

const _: () = {
    assert!(PART_BYTES_MAX * 2 <= FRAME_BYTES_MAX, "a part fits, with what stands around it");
    // An object, a reason and an advice; 16 bytes pay for tags and lengths.
    let refusals = REFUSALS_MAX * (3 * TEXT_BYTES_MAX + 16);
    assert!(refusals <= FRAME_BYTES_MAX, "the longest refusal is one frame");
    let failure = (CAUSES_MAX + 2) * (TEXT_BYTES_MAX + 8);
    assert!(failure <= FRAME_BYTES_MAX, "the longest failure is one frame");
    assert!(DATA_PAGES_MAX <= FAULT_PAGES_MAX && FAULT_PAGES_MAX <= RUN_PAGES_MAX);
    assert!(RUN_PAGES_MAX <= SLICE_PAGES, "a run has one stream");
    assert!(SLICE_PAGES.is_multiple_of(DATA_PAGES_MAX));
    let held = INVENTORY_BYTES_MAX + LAYOUT_BYTES_MAX + IMAGE_BYTES_MAX;
    assert!(held <= 64 << 20, "what is held whole leaves room under 100 MiB");
    assert!(PAUSE_MAX.as_millis() * 2 < ROUND_WAIT.as_millis(), "a pause is not a stall");
    assert!(
        DECISION_WAIT.as_millis() < HANDOVER_WAIT.as_millis(),
        "a source in doubt asks before a destination that saw no permit gives up"
    );
    assert!(RECONNECT_WAIT.as_millis() < DECISION_WAIT.as_millis());
};
