//! Which hosts a line is about: patterns of names, as OpenSSH writes them.

use std::str::FromStr;

use super::LineProblem;

/// Patterns with a comma between them; `*` is any run of characters and `?` any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patterns(Vec<String>);

impl Patterns {
    pub(super) fn any() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// Names compare as DNS does, without case.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.0.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }
}

impl FromStr for Patterns {
    type Err = LineProblem;

    fn from_str(text: &str) -> Result<Self, LineProblem> {
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || "-_.:%*?".contains(c);
        let patterns: Vec<String> = text.split(',').map(str::to_ascii_lowercase).collect();
        let is_good = |pattern: &String| !pattern.is_empty() && pattern.chars().all(is_of_a_name);
        if patterns.iter().all(is_good) { Ok(Self(patterns)) } else { Err(LineProblem::Pattern) }
    }
}

/// In time that grows with the product of both lengths, however many stars there are: on a mismatch
/// only the last star takes one character more.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of_name, mut star) = (0, 0, None);
    while of_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of_name));
                at += 1;
            }
            Some(&c) if c == b'?' || c == name[of_name] => {
                at += 1;
                of_name += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                of_name = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(name: &str, text: &str) -> bool {
        text.parse::<Patterns>().unwrap().matches(name)
    }

    #[test]
    fn stars_and_question_marks_stand_for_characters() {
        for (name, text) in [
            ("hosta", "*"),
            ("hosta", "host?"),
            ("HOSTA.example", "*.Example"),
            ("a.b.example", "x,*.example"),
            ("192.0.2.7", "192.0.2.*"),
            ("fe80::1", "fe80:*"),
            ("aab", "*a*b"),
        ] {
            assert!(is_in(name, text), "{name} {text}");
        }
        for (name, text) in [("hosta", "host"), ("example", "*.example"), ("", "?"), ("ab", "?")] {
            assert!(!is_in(name, text), "{name} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        assert!(!is_in(&"a".repeat(5_000), &("*a".repeat(2_000) + "b")));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", ",", "a,", "a b", "hosta!", "SHA256:+/", "@revoked"] {
            assert_eq!(text.parse::<Patterns>(), Err(LineProblem::Pattern), "{text}");
        }
    }
}
