//! The example of a service that starts slowly (`deploy/examples/slow-start`), on one host.

use crate::hosts::{Host, Started, TwoHosts};
use crate::{place, wait};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/slow-start");

const URL: &str = "http://127.0.0.1:8080/uses?java/util/HashMap";

#[derive(Debug)]
pub struct SlowStart {
    hosts: TwoHosts,
    migrate: String,
    /// Where its class is, and a file that makes an image stale.
    folder: PathBuf,
}

/// What it was asked first after a start.
#[derive(Debug)]
pub struct Answer {
    pub after_ms: u64,
    /// How many questions it has been asked in its life.
    pub question: u64,
    /// What its keeper has said of how it started.
    pub story: String,
}

impl SlowStart {
    /// Reads so many classes at every normal start. `more` is for its settings.
    pub fn new(classes: u32, more: &str) -> Result<Self> {
        let hosts = TwoHosts::new()?;
        let folder = hosts.shared().join("slow-start");
        fs::create_dir(&folder)?;
        let source = Path::new(EXAMPLE).join("SlowStart.java");
        let javac = Command::new("javac").arg("-d").args([&folder, &source]).status();
        ensure!(javac.context("run javac")?.success(), "javac failed");
        fs::write(folder.join("properties"), "first")?;
        let program = ["/usr/bin/java", "-XX:-UsePerfData", "-cp", &place::text(&folder)?];
        let classes = classes.to_string();
        let command: Vec<&str> =
            program.into_iter().chain(["SlowStart", "8080", &classes]).collect();
        let files = [&folder];
        let settings = format!("command = {command:?}\nfiles = {files:?}\n{more}\n");
        hosts.a.write("/etc/migrate/services/slow-start.conf", &settings)?;
        hosts.a.run(&["ip", "link", "set", "lo", "up"])?.success()?;
        Ok(Self { migrate: place::program("migrate")?, hosts, folder })
    }

    pub fn host(&self) -> &Host {
        &self.hosts.a
    }

    /// What is missing here to run it.
    pub fn lacks() -> Option<&'static str> {
        ["java", "javac", "python3"].into_iter().find(|program| !place::is_installed(program))
    }

    pub fn change_its_file(&self) -> Result<()> {
        Ok(fs::write(self.folder.join("properties"), "second")?)
    }

    pub fn image(&self) -> PathBuf {
        self.host().path("/var/lib/migrate/services/slow-start/image")
    }

    /// Runs it, and waits for its first answer.
    pub fn start(&self) -> Result<Answer> {
        fs::write(self.log_path(), "")?;
        let (asker, log_path) =
            (format!("{EXAMPLE}/first-answer.py"), place::text(&self.log_path())?);
        let ask = ["/usr/bin/python3", &asker, URL, &log_path, &self.migrate];
        let argv: Vec<&str> = ask.into_iter().chain(["service", "run", "slow-start"]).collect();
        let asking: Started = self.host().spawn(&argv)?;
        let said = self.host().finish(&asking, wait::PATIENCE)?;
        let said = said.success().with_context(|| self.log().unwrap_or_default())?;
        // The program may answer before its keeper has said how it came to run.
        let story = wait::until(
            wait::PATIENCE,
            || "how it started".into(),
            || {
                let story = self.log()?;
                let is_said = ["goes on from its image", "starts normally: "];
                Ok(is_said.iter().any(|words| story.contains(words)).then_some(story))
            },
        )?;
        let [after_ms, .., question] = said.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("an answer like {said:?}");
        };
        Ok(Answer { after_ms: after_ms.parse()?, question: question.parse()?, story })
    }

    /// What it and its keeper have said since the last start.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.log_path()).context("read what a service said")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// What the command has said.
    pub fn stop(&self) -> Result<String> {
        self.host().run(&[&self.migrate, "service", "stop", "slow-start"])?.success()
    }

    pub fn discard(&self) -> Result<String> {
        self.host().run(&[&self.migrate, "service", "discard", "slow-start"])?.success()
    }

    /// Processes of the host whose command line has this word.
    pub fn processes(&self, word: &str) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.host().path("/proc"))? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
            let line = self.host().read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split('\0').any(|argument| argument == word) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

impl Answer {
    pub fn came_from_the_image(&self) -> Result<()> {
        ensure!(self.story.contains("goes on from its image"), "{self:?}");
        Ok(())
    }

    /// With the reason that its keeper has given in one line.
    pub fn came_after_a_normal_start(&self, why: &str) -> Result<()> {
        let mut lines = self.story.lines().filter(|line| line.contains("starts normally: "));
        ensure!(lines.any(|line| line.contains(why)), "{why}? {self:?}");
        ensure!(self.question == 1, "it remembers: {self:?}");
        Ok(())
    }
}
