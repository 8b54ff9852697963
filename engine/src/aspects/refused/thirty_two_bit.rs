//! Programs for the processor's 32-bit mode, from the class of the executable, elf(5).

use super::super::Subject;
use crate::refusal::Refusal;
use std::fs::File;
use std::io::Read as _;

pub(super) fn examine(subject: &Subject<'_>) -> Vec<Refusal> {
    let mut head = [0; 5];
    let read = File::open(subject.path("exe")).and_then(|mut exe| exe.read_exact(&mut head));
    // Without an executable it is a kernel thread, which others refuse.
    if read.is_err() || !is_thirty_two_bit(&head) {
        return Vec::new();
    }
    vec![Refusal {
        object: subject.process(),
        reason: "is a 32-bit program".to_owned(),
        advice: "Only 64-bit programs can be moved; use a 64-bit build of it.".to_owned(),
    }]
}

fn is_thirty_two_bit(head: &[u8; 5]) -> bool {
    head == b"\x7fELF\x01"
}

#[cfg(test)]
mod tests {
    use super::super::super::trial::this_thread;
    use super::*;

    #[test]
    fn the_class_is_the_fifth_byte() {
        assert!(is_thirty_two_bit(b"\x7fELF\x01"));
        assert!(!is_thirty_two_bit(b"\x7fELF\x02"));
        assert!(!is_thirty_two_bit(b"#!/bi"));
        assert_eq!(examine(&this_thread()), []);
    }
}
