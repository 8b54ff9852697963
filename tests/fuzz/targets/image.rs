//! Layouts, trees and lists of descriptors, through what the destination checks before it acts.

#![no_main]

use engine::aspects::{Scope, Subject, restore_all, touched_by_kernel};
use engine::batch::Batch;
use engine::image::{Layout, TreeImage, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(layout) = decode::<Layout>("layout", bytes) {
        let _ = engine::fuzzing::check_layout(&layout);
    }
    let Ok(image) = decode::<TreeImage>("image", bytes) else { return };
    if let Some(table) = &image.descriptors {
        let _ = engine::descriptors::check(table, &[]);
        let pids = table.descriptors.iter().map(|one| one.pid).take(4);
        for pid in pids {
            let _ = engine::descriptors::connect(table, pid, &mut Batch::new());
        }
    }
    let _ = engine::fuzzing::missing_pages(&image);
    for process in &image.processes {
        let subject = Subject { pid: process.pid, tid: process.pid, status: "" };
        let _ = restore_all(&process.aspects, Scope::Process, &subject, &mut Batch::new());
        for thread in &process.threads {
            let _ = restore_all(&thread.aspects, Scope::Thread, &subject, &mut Batch::new());
            let _ = touched_by_kernel(&thread.aspects);
            engine::fuzzing::registers(thread);
        }
    }
});
