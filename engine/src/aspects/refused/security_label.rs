//! What a security module (AppArmor, SELinux, Smack) confines a process as,
//! proc_pid_attr(5). Restored under our own label it would be free of its confinement.

use super::super::Subject;
use crate::refusal::Refusal;

pub(super) fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
    let read = |path: &str| std::fs::read(path).ok().map(label);
    let theirs = read(&subject.path("attr/current"));
    refused(theirs, read("/proc/self/attr/current"), subject)
}

/// Without a security module there is nothing to read.
fn refused(theirs: Option<String>, ours: Option<String>, subject: &Subject<'_>) -> Vec<Refusal> {
    let confined = theirs.filter(|theirs| ours.as_ref() != Some(theirs));
    let refusal = |label: String| Refusal {
        object: subject.process(),
        reason: format!("is confined by a security module as {label:?}"),
        advice: "Start it without that profile, or run the agents under it.".to_owned(),
    };
    confined.map(refusal).into_iter().collect()
}

/// Ended by a zero, a new line, or nothing, as the module likes.
fn label(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim_end_matches(['\0', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::trial::this_thread;
    use super::*;

    fn seen(theirs: Option<&[u8]>, ours: Option<&[u8]>) -> usize {
        let [theirs, ours] = [theirs, ours].map(|bytes| bytes.map(<[u8]>::to_vec).map(label));
        refused(theirs, ours, &this_thread()).len()
    }

    #[test]
    fn a_label_that_is_not_ours_is_refused() {
        assert_eq!(seen(Some(b"redis (enforce)\n"), Some(b"unconfined\n")), 1);
        assert_eq!(seen(Some(b"unconfined\n"), Some(b"unconfined\n")), 0);
        assert_eq!(seen(Some(b"a_t:s0\0"), Some(b"a_t:s0")), 0);
        assert_eq!(seen(None, None), 0);
        assert_eq!(examine(&this_thread()), []);
    }
}
