//! What the first process of a copy's namespace has to do, and the doing of it.

use super::terms::Terms;
use super::words::{Said, Word};
use crate::policy::file;
use anyhow::{Context as _, Result};
use clap::Args;
use link::Fingerprint;
use source_agent::copies::{Begun, enter, start};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

/// As the agent writes it on the command line of another `dest-agent`.
#[derive(Args, Clone, Debug)]
pub struct Errand {
    /// Where the image is, and before it the inventory
    #[arg(long)]
    pub(super) images_dir: PathBuf,
    #[arg(long)]
    pub(super) state: PathBuf,
    /// Where the policy is
    #[arg(long)]
    pub(super) config: PathBuf,
    /// Who has sent it
    #[arg(long)]
    pub(super) source: Fingerprint,
    /// What a CA has certified that it is called
    #[arg(long = "name")]
    pub(super) names: Vec<String>,
    /// How many copies there will be
    #[arg(long)]
    pub(super) count: u32,
    /// What was offered of one of them
    #[arg(long)]
    pub(super) memory_bytes: u64,
    /// That all of them may have together
    #[arg(long)]
    pub(super) memory_bytes_max: u64,
    #[arg(long)]
    pub(super) network_namespace: bool,
    /// The control group of this copy
    #[arg(long)]
    pub(super) scope: Option<PathBuf>,
    /// There is no image yet: say what stands against it
    #[arg(long)]
    pub(super) only_judge: bool,
}

impl Errand {
    /// Where the inventory comes.
    pub(super) fn inventory(&self) -> PathBuf {
        self.images_dir.join("inventory")
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("copy").arg("--images-dir").arg(&self.images_dir);
        command.arg("--state").arg(&self.state).arg("--config").arg(&self.config);
        command.arg("--source").arg(self.source.to_string());
        command.args(self.names.iter().map(|name| format!("--name={name}")));
        command.arg("--count").arg(self.count.to_string());
        command.arg("--memory-bytes").arg(self.memory_bytes.to_string());
        command.arg("--memory-bytes-max").arg(self.memory_bytes_max.to_string());
        if let Some(scope) = &self.scope {
            command.arg("--scope").arg(scope);
        }
        let flags =
            [(self.network_namespace, "--network-namespace"), (self.only_judge, "--only-judge")];
        command.args(flags.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, flag)| flag));
        // A group of its own: what is typed in the agent's terminal is for the agent.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }
}

/// While there is one thread: others would not be in the namespaces.
pub fn run(errand: &Errand) -> Result<ExitCode> {
    if let Some(scope) = &errand.scope {
        // "0" is whoever writes it: cgroups(7).
        fs::write(scope.join("cgroup.procs"), "0").context("enter a control group")?;
    }
    enter(errand.network_namespace).context("enter namespaces")?;
    let rules = file::rules(&errand.config, &errand.source, &errand.names)?;
    let terms = Terms::new(rules, errand.count, errand.memory_bytes_max);
    if errand.only_judge {
        judge(&terms, errand).say()?;
        return Ok(ExitCode::SUCCESS);
    }
    let (directory, state) = (errand.images_dir.clone(), errand.state.clone());
    start(directory, state, Arc::new(terms), |begun| {
        // An agent that has gone hears nothing, and then it does not run either.
        let _ = word(begun).say();
    })
}

fn judge(terms: &Terms, errand: &Errand) -> Word {
    let judged = terms.judge(&errand.inventory(), errand.memory_bytes);
    match judged {
        Ok(refusals) => Word::Judged(refusals.iter().map(Said::from).collect()),
        Err(error) => Word::Failed(vec![error.to_string(), error.source.to_string()]),
    }
}

fn word(begun: Begun) -> Word {
    match begun {
        Begun::Runs { pid, missing_pages } => Word::Runs { pid, missing_pages },
        Begun::Whole => Word::Whole,
        Begun::Refused(refusals) => Word::Refused(refusals.iter().map(Said::from).collect()),
        Begun::Failed(chain) => Word::Failed(chain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    #[derive(Debug, Parser)]
    struct Reader {
        #[command(flatten)]
        errand: Errand,
    }

    #[test]
    fn what_is_written_on_the_command_line_is_what_is_read() {
        let errand = Errand {
            images_dir: "/var/lib/migrate/clone-1".into(),
            state: "/var/lib/migrate".into(),
            config: "/etc/migrate".into(),
            source: format!("SHA256:{}A", "B".repeat(42)).parse().unwrap(),
            names: vec!["hosta".to_owned(), "-odd".to_owned()],
            count: 3,
            memory_bytes: 5,
            memory_bytes_max: u64::MAX,
            network_namespace: true,
            scope: Some("/sys/fs/cgroup/migrate-1.scope".into()),
            only_judge: false,
        };
        let command = errand.command();
        let arguments = command.get_args().skip(1);
        let read = Reader::command().no_binary_name(true).get_matches_from(arguments);
        let read = Reader::from_arg_matches(&read).unwrap();
        assert_eq!(format!("{:?}", read.errand), format!("{errand:?}"));
    }
}
