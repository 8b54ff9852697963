//! How big the big tests are: all of it by default, less with `MIGRATE_TEST_SCALE=0.1`.

/// The environment variable that holds the factor, between 0 and 1.
pub const FACTOR: &str = "MIGRATE_TEST_SCALE";

/// The environment variable that asks for a long run; `cargo xtask test --long` sets it.
pub const LONG: &str = "MIGRATE_TEST_LONG";

/// `full` scaled, but never below `least`, where a test would no longer test anything.
pub fn scaled(full: u32, least: u32) -> u32 {
    scaled_by(factor(), full, least)
}

/// How often a test does something again: ten times, more in a long run, less in a scaled one.
pub fn repetitions() -> u32 {
    let is_long = std::env::var_os(LONG).is_some();
    scaled(if is_long { 50 } else { 10 }, 1)
}

fn factor() -> f64 {
    let text = std::env::var(FACTOR).unwrap_or_default();
    text.parse().ok().filter(|factor| (0.0..=1.0).contains(factor)).unwrap_or(1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a factor between 0 and 1 keeps a u32 within a u32"
)]
fn scaled_by(factor: f64, full: u32, least: u32) -> u32 {
    ((f64::from(full) * factor) as u32).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_a_tenth_and_not_less_than_the_least() {
        assert_eq!(scaled_by(0.1, 1000, 8), 100);
        assert_eq!(scaled_by(0.1, 10, 8), 8);
        assert_eq!(scaled_by(1.0, u32::MAX, 8), u32::MAX);
    }
}
