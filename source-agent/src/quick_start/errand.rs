//! Another `migrate` that dumps or restores for a keeper, and what it says of it.
//!
//! In a process of its own: whatever happens to it, the keeper is there to start the program.

use crate::restore::another::running;
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use tokio::task::spawn_blocking;

/// What was heard until it ended, or until it said that the tree runs.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) errand: Pid,
    /// The first process of a tree that runs.
    pub(super) runs: Option<Pid>,
    why: Vec<String>,
}

pub(super) async fn send(arguments: &[&OsStr]) -> io::Result<Heard> {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped());
    spawn_blocking(move || listen(&mut command)).await?
}

fn listen(command: &mut Command) -> io::Result<Heard> {
    let mut child = command.spawn()?;
    let errand = Pid::from_raw(child.id().cast_signed());
    let mut heard = Heard { errand, runs: None, why: Vec::new() };
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let line = line?;
        if let Some((pid, _)) = running(&line) {
            heard.runs = Some(Pid::from_raw(pid));
            break;
        }
        heard.take_in(&line);
    }
    Ok(heard)
}

impl Heard {
    fn take_in(&mut self, line: &str) {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match event["event"].as_str() {
            Some("refusal") => self.why.extend(text(&event["reason"])),
            Some("failure") => {
                let chain = event["chain"].as_array().into_iter().flatten().filter_map(text);
                self.why.push(chain.collect::<Vec<_>>().join(": "));
            }
            _ => {}
        }
    }

    /// In one line.
    pub(super) fn why(&self) -> String {
        if self.why.is_empty() {
            return "it ended without a word".to_owned();
        }
        self.why.join(" ").lines().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard { errand: Pid::from_raw(2), runs: None, why: Vec::new() };
        lines.iter().for_each(|line| heard.take_in(line));
        heard
    }

    #[test]
    fn every_reason_is_told_in_one_line() {
        let refusal = r#"{"event":"refusal","object":"o","reason":"file /x is gone.","advice":""}"#;
        let failure =
            r#"{"event":"failure","chain":["open /y","gone\nfor good"],"runs_on":"source"}"#;
        let heard = heard(&[refusal, "noise", failure]);
        assert_eq!(heard.why(), "file /x is gone. open /y: gone for good");
    }

    #[test]
    fn who_ends_without_a_word_is_told_so() {
        assert!(heard(&[]).why().contains("without a word"));
    }
}
