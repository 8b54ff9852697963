//! Namespaces other than ours, namespaces(7). Time namespaces are no obstacle: the destination
//! makes one anyway, so that clocks go on. Nor is a network namespace that all of the tree lives in,
//! which is for `crate::network::namespace` to judge.

use super::super::Subject;
use crate::error::Object;
use crate::refusal::Refusal;
use std::ffi::OsString;

/// The name in `/proc/PID/ns`, and what a person calls it.
const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "IPC"),
    ("mnt", "mount"),
    ("net", "network"),
    ("pid", "PID"),
    ("pid_for_children", "PID (for its children)"),
    ("user", "user"),
    ("uts", "UTS"),
];

/// A process is compared with us, and a thread that left its process's namespaces with it.
pub(super) fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
    let process = format!("/proc/{}/ns", subject.pid);
    // A leader that has ended is in no namespaces any more.
    let leads = subject.tid == subject.pid || std::fs::read_link(format!("{process}/mnt")).is_err();
    let (compared, object) = if leads {
        ("/proc/self/ns".to_owned(), subject.process())
    } else {
        (process, Object::Thread { pid: subject.pid, tid: subject.tid })
    };
    let is_judged_here = |kind: &str| !leads || kind != "net";
    let refusal = |name: &str| Refusal {
        object: object.clone(),
        reason: format!("is in another {name} namespace"),
        advice: "Run the agents inside its namespaces, or start it outside of them.".to_owned(),
    };
    KINDS
        .iter()
        .filter(|(kind, _)| is_judged_here(kind))
        .filter(|(kind, _)| differs(&subject.path(&format!("ns/{kind}")), &compared, kind))
        .map(|(_, name)| refusal(name))
        .collect()
}

/// A namespace that one side does not have (an old kernel, an ended thread) differs from nothing.
fn differs(link: &str, compared: &str, kind: &str) -> bool {
    let read = |path: &str| std::fs::read_link(path).ok().map(OsString::from);
    match (read(link), read(&format!("{compared}/{kind}"))) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::trial::{alone, run, set, this_thread};
    use super::*;
    use crate::args;
    use std::sync::mpsc::channel;

    #[test]
    fn ours_is_no_obstacle() {
        assert_eq!(examine(&this_thread()), []);
    }

    #[test]
    fn a_thread_in_one_of_its_own_is_named_with_it() {
        alone(|| {
            let (say, hear) = channel();
            let (end, ended) = channel::<()>();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let flags = libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
                    run(|batch| set(batch, libc::SYS_unshare, args![flags]));
                    say.send(this_thread()).unwrap();
                    ended.recv().unwrap_err();
                });
                let subject = hear.recv().unwrap();
                let texts: Vec<_> = examine(&subject).iter().map(ToString::to_string).collect();
                let thread = format!("thread {} of process {}", subject.tid, subject.pid);
                assert_eq!(texts.len(), 2, "{texts:?}");
                assert!(texts[0].starts_with(&format!("{thread} is in another IPC namespace")));
                assert!(texts[1].starts_with(&format!("{thread} is in another UTS namespace")));
                // The same thread taken for a process is compared with us.
                let process = Subject { pid: subject.tid, ..subject };
                assert_eq!(examine(&process).len(), 2);
                drop(end);
            });
        });
    }
}
