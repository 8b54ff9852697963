//! What the first process of a copy says to the agent that has started it: one word a line.

use protocol::Refusal;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write as _};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Of an inventory.
    Judged(Vec<Said>),
    /// The copy is one step from running, until it has [`GO`].
    Waits,
    /// With the id that its first process has in its namespace.
    Runs {
        pid: i32,
        missing_pages: u64,
    },
    /// It runs, and has every page.
    Whole,
    Refused(Vec<Said>),
    /// What was being done, and every cause.
    Failed(Vec<String>),
}

/// A refusal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    object: String,
    reason: String,
    advice: String,
}

/// The only line that the agent says.
pub(super) const GO: &str = "go\n";

impl From<&Refusal> for Said {
    fn from(Refusal { object, reason, advice }: &Refusal) -> Self {
        Self { object: object.clone(), reason: reason.clone(), advice: advice.clone() }
    }
}

impl From<Said> for Refusal {
    fn from(Said { object, reason, advice }: Said) -> Self {
        Self::new(object, reason, advice)
    }
}

impl Word {
    /// On standard output.
    pub(super) fn say(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(self)?)?;
        out.flush()
    }

    /// `None` where there are no more.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        match from.read_line(&mut line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_line_and_is_understood() {
        let refusal = Refusal::new("file /x", "is\nmissing", "Copy it.");
        for word in [
            Word::Judged(vec![Said::from(&refusal)]),
            Word::Waits,
            Word::Runs { pid: 7, missing_pages: 9 },
            Word::Failed(vec!["map".to_owned(), "no memory".to_owned()]),
        ] {
            let line = serde_json::to_string(&word).unwrap() + "\n";
            assert_eq!(line.lines().count(), 1);
            assert_eq!(Word::read(&mut line.as_bytes()).unwrap(), Some(word));
        }
        assert_eq!(Word::read(&mut io::empty()).unwrap(), None);
        assert!(Word::read(&mut "it runs\n".as_bytes()).is_err());
    }
}
