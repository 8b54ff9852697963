//! The original of an image, where it is still on this host: stopped, as a dump has left it.

use engine::image::{Layout, StoredImage};
use engine::tree::{Life, Process};
use protocol::Refusal;
use protocol::version::HostFacts;
use std::fs;

/// A dump that is killed when its image is whole, and before its tree has ended, leaves that stopped.
pub(super) fn stands_still(
    image: &StoredImage,
    theirs: &HostFacts,
    ours: &HostFacts,
) -> Option<Refusal> {
    let layout: &Layout = image.tree().layout.as_ref()?;
    let root = layout.processes.first()?.pid;
    let captured = image.tree().image.as_ref()?.processes.iter().find(|one| one.pid == root)?;
    let executable = &captured.memory.as_ref()?.executable;
    let is_it = theirs.boot_id == ours.boot_id
        && Process::read(root).is_ok_and(|process| process.life == Life::Stopped)
        && fs::read_link(format!("/proc/{root}/exe"))
            .is_ok_and(|path| path.as_os_str() == &**executable);
    is_it.then(|| {
        let reason = "is the original of this image and stands still: it was dumped with \
                      `--leave-stopped`, or its dump was killed in its last step";
        let advice = format!(
            "End it (`kill -KILL {root}`), or, so that the peers of its connections do not hear of it, by \
             another `migrate dump` of it."
        );
        Refusal::new(format!("process {root}"), reason, advice)
    })
}
