//! How long clients waited, over many moves.

use std::fmt;

#[derive(Clone, Debug, Default)]
pub struct Stalls(Vec<f64>);

impl Stalls {
    /// The longest of one move, in milliseconds.
    pub fn push(&mut self, longest_ms: f64) {
        let place = self.0.partition_point(|other| *other < longest_ms);
        self.0.insert(place, longest_ms);
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(median), Some(most)) = (self.0.get(self.0.len() / 2), self.0.last()) else {
            return write!(formatter, "no move");
        };
        let count = self.0.len();
        write!(formatter, "{count} moves, the longest stall {median:.1} ms in the median, ")?;
        write!(formatter, "{most:.1} ms in the worst")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_one_of_them_and_the_worst_the_last() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.to_string(), "no move");
        [30.0, 380.0, 40.0].into_iter().for_each(|stall| stalls.push(stall));
        let said = "3 moves, the longest stall 40.0 ms in the median, 380.0 ms in the worst";
        assert_eq!(stalls.to_string(), said);
    }
}
