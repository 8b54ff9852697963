//! A set of CPUs or memory nodes, as the kernel passes it: one bit each, in words of 64.

/// Without the words at the end that are zero: two hosts may differ in how many they have.
pub(super) fn trimmed(mut words: Vec<u64>) -> Vec<u64> {
    while words.last() == Some(&0) {
        words.pop();
    }
    words
}

pub(super) fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
    trimmed(bytes.chunks_exact(8).map(word).collect())
}

pub(super) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(super) fn covers(all: &[u64], some: &[u64]) -> bool {
    let word = |index| all.get(index).copied().unwrap_or(0);
    some.iter().enumerate().all(|(index, bits)| bits & !word(index) == 0)
}

/// The kernel's list format, "0-3,8\n". Nothing beyond the 8192 CPUs that Linux can have.
pub(super) fn from_list(text: &str) -> Option<Vec<u64>> {
    let mut words = vec![0; 128];
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for bit in first..=last {
            *words.get_mut(bit / 64)? |= 1_u64 << (bit % 64);
        }
    }
    Some(trimmed(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_ranges_and_single_ones() {
        assert_eq!(from_list("0-3,8\n"), Some(vec![0x10f]));
        assert_eq!(from_list("64"), Some(vec![0, 1]));
        assert_eq!(from_list("\n"), Some(vec![]));
        assert_eq!(from_list("0-18446744073709551615"), None);
        assert_eq!(from_list("1-"), None);
    }

    #[test]
    fn a_set_covers_itself_and_less() {
        assert!(covers(&[0b111], &[0b101]));
        assert!(covers(&[0b1, 0b1], &[0, 0b1]));
        assert!(!covers(&[0b1], &[0b1, 0b1]));
        assert!(covers(&[], &[]));
    }

    #[test]
    fn bytes_come_back_without_their_zero_words() {
        assert_eq!(from_bytes(&to_bytes(&[5, 0, 9, 0])), [5, 0, 9]);
    }
}
