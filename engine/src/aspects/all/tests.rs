use super::super::trial::{alone, run, this_thread};
use super::super::{ALL, Scope, Subject, read_status};
use super::*;
use crate::sys::here::run_here;
use std::collections::BTreeSet;

fn capture(scope: Scope) -> Vec<AspectImage> {
    let status = read_status(this_thread().tid).unwrap();
    let subject = Subject { status: &status, ..this_thread() };
    let mut batch = Batch::new();
    let asked = ask_all(scope, &subject, &mut batch);
    read_all(asked, &subject, &run_here(&batch)).unwrap()
}

fn why(images: &[AspectImage]) -> String {
    let error = restore_all(images, Scope::Process, &this_thread(), &mut Batch::new()).unwrap_err();
    format!("{error}: {}", error.source)
}

#[test]
fn names_are_distinct_and_processes_come_first() {
    let names: BTreeSet<_> = ALL.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), ALL.len());
    assert!(ALL.is_sorted_by_key(|entry| entry.scope == Scope::Thread));
}

#[test]
fn all_aspects_can_be_restored_where_they_were_captured() {
    alone(|| {
        for scope in [Scope::Process, Scope::Thread] {
            let images = capture(scope);
            assert_eq!(images.len(), of(scope).count());
            run(|batch| restore_all(&images, scope, &this_thread(), batch).unwrap());
            restore_outside_all(&images, scope, &this_thread()).unwrap();
            assert_eq!(capture(scope), images);
        }
    });
}

#[test]
fn images_of_the_other_scope_are_left_alone() {
    let images = capture(Scope::Thread);
    let mut batch = Batch::new();
    restore_all(&images, Scope::Process, &this_thread(), &mut batch).unwrap();
    assert!(batch.is_empty());
}

#[test]
fn an_image_that_cannot_be_used_is_named() {
    let image = |name: &str, version| AspectImage { name: name.into(), version, bytes: vec![] };
    let unknown = why(&[image("flying\u{7}", 1)]);
    assert!(unknown.contains("\"flying\\u{7}\"") && unknown.contains("does not know"), "{unknown}");
    let newer = why(&[image("umask", 2)]);
    assert!(newer.contains("\"umask\"") && newer.contains("version 2, known is 1"), "{newer}");
    assert!(why(&[image("umask", 1), image("umask", 1)]).contains("twice"));
    assert!(why(&[image(&"x".repeat(1 << 20), 1)]).len() < 200);
}

/// Only writes the batches: what they would do is for the kernel to judge.
#[test]
fn hostile_images_never_panic() {
    let mut images = capture(Scope::Process);
    images.extend(capture(Scope::Thread));
    for image in images {
        let entry = ALL.iter().find(|entry| entry.name == image.name).unwrap();
        for hostile in spoilt(&image.bytes) {
            // Either answer is right.
            let _ = (entry.restore)(&hostile, &this_thread(), &mut Batch::new());
        }
    }
}

/// Every prefix, and every byte replaced by the values that mean most to a decoder.
fn spoilt(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let replaced = (0..bytes.len()).flat_map(move |at| {
        [0, 1, 0x7f, 0x80, 0xff].map(|byte| {
            let mut spoilt = bytes.to_vec();
            spoilt[at] = byte;
            spoilt
        })
    });
    (0..bytes.len()).map(|length| bytes[..length].to_vec()).chain(replaced)
}

#[test]
fn a_blocker_is_told_once_a_process() {
    let status = "Seccomp:\t2\n";
    let threads = [1, 1, 2].map(|pid| Subject { pid, status, ..this_thread() });
    let refusals = examine_all(&threads);
    let told = refusals.iter().filter(|refusal| refusal.reason == "uses seccomp filters");
    let objects: Vec<_> = told.map(|refusal| refusal.object.clone()).collect();
    assert_eq!(objects, [Object::Process { pid: 1 }, Object::Process { pid: 2 }]);
}

#[test]
fn this_process_can_be_carried() {
    // But for the filters that a container may put on all that runs in it.
    let status = read_status(this_thread().tid).unwrap().replace("Seccomp:\t2", "Seccomp:\t0");
    assert_eq!(examine_all(&[Subject { status: &status, ..this_thread() }]), []);
}
