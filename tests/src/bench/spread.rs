//! Several measurements of one thing: the median, and between what they lie.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let is_even = sorted.len().is_multiple_of(2);
        let below = sorted[if is_even { middle - 1 } else { middle }];
        Some(Self { median: f64::midpoint(below, sorted[middle]), min, max })
    }

    /// `12.3 (11.0–15.2)`, with fewer digits for larger numbers.
    pub fn shown(self) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(short);
        format!("{median} ({min}–{max})")
    }
}

/// Three digits that mean something.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        below_ten if below_ten < 9.995 => format!("{value:.2}"),
        below_hundred if below_hundred < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle_or_between_the_two() {
        let odd = Spread::of([30.0, 10.0, 20.0]).unwrap();
        assert_eq!(odd, Spread { median: 20.0, min: 10.0, max: 30.0 });
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even, Spread { median: 2.5, min: 1.0, max: 4.0 });
        let one = Spread::of([7.0]).unwrap();
        assert_eq!(one, Spread { median: 7.0, min: 7.0, max: 7.0 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_are_shown_with_the_digits_that_mean_something() {
        assert_eq!(
            ["1.23", "12.3", "1234"],
            [1.234, 12.34, 1234.4].map(short).each_ref().map(String::as_str)
        );
        assert_eq!(short(99.97), "100");
        assert_eq!(Spread::of([1.0, 20.0, 300.0]).unwrap().shown(), "20.0 (1.00–300)");
    }
}
