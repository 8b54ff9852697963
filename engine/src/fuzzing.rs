//! Doors for the fuzz targets of `tests/fuzz`, which stand outside of this crate. They are not
//! there in any other build.

use crate::error::Error;
pub use crate::image::fuzzing as stored;
use crate::image::{Layout, ThreadImage, TreeImage};
use crate::{arch, aspects, clocks, descriptors, host, inventory, kinds, memory, source, stage};

/// Every parser of what the kernel shows as text.
pub fn procfs(text: &[u8]) {
    let _ = memory::mapping::parse(text);
    let _ = memory::mapping::parse_smaps(text);
    descriptors::parse_all(text);
    let text = &String::from_utf8_lossy(text);
    let _ = memory::vm_flags::VmFlags::parse(text);
    let _ = clocks::parse_offsets(text);
    let _ = host::cpu_features(text);
    let _ = host::free_memory(text);
    if looks_like_stat(text.trim()) {
        let _ = <procfs::process::Stat as procfs::FromRead>::from_read(text.as_bytes());
    }
    aspects::parse_all(text);
    kinds::parse_all(text);
    inventory::parse_all(text);
}

/// "PID (NAME) ...": whatever the name is, the kernel writes no other line, and on others the
/// library panics.
fn looks_like_stat(text: &str) -> bool {
    let begin = text.find('(').filter(|at| text[..*at].ends_with(' '));
    let end = text.rfind(')').filter(|at| text[*at..].starts_with(") "));
    matches!((begin, end), (Some(begin), Some(end)) if begin < end)
}

/// What the destination makes sure of before it builds anything.
pub fn check_layout(layout: &Layout) -> Result<(), Error> {
    stage::check::check(layout)
}

/// The patches of a vdso that came from elsewhere.
pub fn redirect_vdso(source: &[u8], ours: &[u8], at: u64) -> bool {
    arch::x86_64::vdso::redirect(source, ours, at).is_ok()
}

/// The vdso that this kernel gives to its processes.
pub fn our_vdso() -> Vec<u8> {
    stage::vdso::ours().unwrap_or_default()
}

/// The list of pages that come later.
pub fn missing_pages(image: &TreeImage) -> Result<(), Error> {
    let spaces = image.missing.iter().map(|missing| (missing.space, 1));
    source::Serving::of(spaces, &image.missing).map(drop)
}

pub fn registers(thread: &ThreadImage) {
    let _ = thread.whole_xstate();
    let _ = thread.registers();
}
