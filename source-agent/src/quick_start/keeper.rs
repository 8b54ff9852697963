//! Whoever stands above a service: starts it one way or the other, and stores it when it is
//! stopped.

use super::basis::Basis;
use super::children::{Children, Ended};
use super::enclosure::settle_in;
use super::errand::{self, Heard};
use super::output::Output;
use super::service::Service;
use super::settings::{Settings, Use};
use crate::exit_code;
use crate::signals::Signals;
use crate::spare_ids::{SPARED, spare};
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

#[derive(Debug)]
struct Keeper {
    service: Service,
    settings: Settings,
    basis: Basis,
    children: Children,
    output: Output,
}

/// A service that runs.
#[derive(Debug)]
struct Program {
    pid: Pid,
    /// Whoever still brings its memory.
    pages: Option<Pid>,
}

pub(super) async fn run(service: Service, settings: Settings) -> Result<ExitCode> {
    settle_in()?;
    let mut signals = Signals::watch()?;
    let basis = Basis::look(&settings.command, &settings.files)?;
    let output = Output::open(&service)?;
    let mut keeper = Keeper { service, settings, basis, children: Children::watch()?, output };
    let program = keeper.start().await?;
    let status = keeper.stay_until_it_ends(program, &mut signals).await?;
    keeper.output.finish().await;
    Ok(exit_code::of(status))
}

impl Keeper {
    async fn start(&mut self) -> Result<Program> {
        let began = Instant::now();
        match self.restore().await {
            Ok(program) => {
                let elapsed_ms = began.elapsed().as_millis();
                self.service.say(&format!("goes on from its image, after {elapsed_ms} ms"));
                Ok(program)
            }
            Err(why) => self.start_normally(&why).await,
        }
    }

    /// With nothing left of an attempt to restore it, and no image that is older than this start.
    async fn start_normally(&mut self, why: &str) -> Result<Program> {
        self.service.say(&format!("starts normally: {why}"));
        self.children.end_all().await?;
        if let Err(error) = self.service.discard() {
            self.service.say(&format!("{error:#}"));
        }
        self.service.forget_used();
        spare(SPARED)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["service", "begin", "--"]).args(&self.settings.command);
        command.stdin(Stdio::null()).stdout(self.output.writer()?).stderr(self.output.writer()?);
        let child = command.spawn().context("start the program")?;
        Ok(Program { pid: Pid::from_raw(child.id().cast_signed()), pages: None })
    }

    async fn restore(&mut self) -> Result<Program, String> {
        let image = self.service.take_image(&self.basis, self.settings.image)?;
        let words = ["restore", "--detach", "--is-for-another", "--images-dir"].map(OsStr::new);
        let spared = SPARED.to_string();
        let mut arguments = words.to_vec();
        arguments.extend([image.as_os_str(), OsStr::new("--state")]);
        arguments.push(self.service.state.as_os_str());
        arguments.extend(["--spare-ids", &spared].map(OsStr::new));
        if self.settings.lazy {
            arguments.push(OsStr::new("--lazy"));
        }
        let heard = errand::send(&arguments).await.map_err(|error| error.to_string())?;
        match heard.runs {
            Some(pid) => Ok(Program { pid, pages: Some(heard.errand) }),
            None => Err(format!("its image cannot be restored: {}", self.end_of(&heard).await)),
        }
    }

    /// Why an errand was not done.
    async fn end_of(&mut self, heard: &Heard) -> String {
        match self.children.end_of(heard.errand).await {
            Ok(status) if status.code().is_none() => format!("{status}. {}", heard.why()),
            _ => heard.why(),
        }
    }

    async fn stay_until_it_ends(
        &mut self,
        mut program: Program,
        signals: &mut Signals,
    ) -> Result<ExitStatus> {
        let mut is_stopping = false;
        loop {
            tokio::select! {
                ended = self.children.next() => match self.after(ended?, program).await? {
                    After::Runs(again) => program = again,
                    After::Over(status) => return Ok(status),
                },
                Some(signal) = signals.next() => {
                    if signal == Signal::SIGTERM && !is_stopping {
                        is_stopping = true;
                        if self.store(&mut program).await? == Stored::Yes {
                            return Ok(ExitStatus::default());
                        }
                    }
                    // One that has ended meanwhile is told by `children`.
                    let _ = kill(program.pid, signal);
                }
            }
        }
    }

    async fn after(&mut self, ended: Ended, program: Program) -> Result<After> {
        let Ended { pid, status } = ended;
        match program.pages {
            Some(pages) if pages == pid => self.after_its_pages(status, program).await,
            // Its holder kills it when nobody brings its pages any more; that may be seen first.
            Some(pages) if program.pid == pid && status.code().is_none() => {
                let of_pages = self.children.end_of(pages).await?;
                if of_pages.success() {
                    return Ok(After::Over(status));
                }
                self.after_its_pages(of_pages, program).await
            }
            _ if program.pid == pid => Ok(After::Over(status)),
            _ => Ok(After::Runs(program)),
        }
    }

    /// Without the rest of its memory it cannot go on.
    async fn after_its_pages(&mut self, status: ExitStatus, program: Program) -> Result<After> {
        if status.success() {
            self.service.forget_used();
            return Ok(After::Runs(Program { pages: None, ..program }));
        }
        let why = format!("the rest of its memory cannot be had from its image: {status}");
        self.start_normally(&why).await.map(After::Runs)
    }

    /// With all of its memory, which may still be on its way from the last image.
    async fn store(&mut self, program: &mut Program) -> Result<Stored> {
        if self.settings.image == Use::EveryTime && self.service.has_image() {
            return Ok(Stored::No);
        }
        if let Some(pages) = program.pages.take() {
            if !self.children.end_of(pages).await?.success() {
                self.service.say("is not stored: it lacks memory");
                return Ok(Stored::No);
            }
            self.service.forget_used();
        }
        let stored = match self.service.make_ready_for(&self.basis) {
            Ok(image) => self.dump(program.pid, &image).await,
            Err(why) => Err(why),
        };
        Ok(match stored {
            Ok(()) => Stored::Yes,
            Err(why) => {
                self.service.say(&format!("is not stored, and ends normally: {why}"));
                // Whatever there is of one is older than its end.
                if let Err(error) = self.service.discard() {
                    self.service.say(&format!("{error:#}"));
                }
                Stored::No
            }
        })
    }

    async fn dump(&mut self, pid: Pid, image: &Path) -> Result<(), String> {
        let pid = pid.to_string();
        let words = ["dump", "--tree", &pid, "--images-dir"].map(OsStr::new);
        let mut arguments = words.to_vec();
        arguments.push(image.as_os_str());
        arguments.extend(self.settings.dump.iter().map(OsStr::new));
        let heard = errand::send(&arguments).await.map_err(|error| error.to_string())?;
        let status = self.children.end_of(heard.errand).await;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{} ({status})", heard.why())),
            Err(error) => Err(error.to_string()),
        }
    }
}

enum After {
    Runs(Program),
    Over(ExitStatus),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
}
