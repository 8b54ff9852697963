//! `migrate service`: a program that starts slowly is stored when it is stopped, and goes on from
//! there when it is started again.
//!
//! Two processes stand above the program. `run` is what the operator or systemd sees; it passes
//! signals on, and ends as the program does. The keeper ([`keeper`]) is the first process of a PID
//! namespace that `run` makes ([`enclosure`]): there the ids that an image needs are always free,
//! and nothing of a tree outlives the keeper. It has others do the work ([`errand`]), `migrate dump`
//! and `migrate restore`: one that crashes leaves nothing, and the program is started normally.
//!
//! What an image was made of is its [`basis`]; it fits as long as that is as it was.

mod basis;
mod children;
mod enclosure;
mod errand;
mod keeper;
mod output;
mod service;
mod settings;

use crate::cli::{OneService, QuickStart, QuickStartStep};
use crate::complaint::{Complaint, only_root};
use crate::output::print;
use anyhow::Result;
use nix::unistd::setsid;
use service::Service;
use settings::Settings;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use tokio::task::spawn_blocking;

pub(crate) async fn run(asked: QuickStart) -> Result<ExitCode> {
    if let Err(complaint) = only_root("run a service from its image") {
        return Ok(complaint.say());
    }
    match asked.step {
        QuickStartStep::Run(one) => match found(&one) {
            Ok((service, _)) => enclosure::run(service, &one).await,
            Err(complaint) => Ok(complaint.say()),
        },
        QuickStartStep::Keep(one) => match found(&one) {
            Ok((service, settings)) => keeper::run(service, settings).await,
            Err(complaint) => Ok(complaint.say()),
        },
        QuickStartStep::Stop(one) => with(&one, stop).await,
        QuickStartStep::Discard(one) => with(&one, discard).await,
        QuickStartStep::Begin(begin) => Ok(become_the_program(&begin.command).say()),
    }
}

fn found(one: &OneService) -> Result<(Service, Settings), Complaint> {
    let service = Service::named(one)?;
    let path = one.config.join("services").join(format!("{}.conf", one.name));
    Ok((service, Settings::read(&path).map_err(Complaint::refused)?))
}

async fn with(one: &OneService, act: fn(&Service) -> Result<String>) -> Result<ExitCode> {
    let service = match Service::named(one) {
        Ok(service) => service,
        Err(complaint) => return Ok(complaint.say()),
    };
    print(&spawn_blocking(move || act(&service)).await??);
    Ok(ExitCode::SUCCESS)
}

fn stop(service: &Service) -> Result<String> {
    let name = &service.name;
    Ok(match service.end_and_wait()? {
        false => format!("Service {name} does not run."),
        true if service.has_image() => {
            format!("Service {name} has ended; its next start is from its image.")
        }
        true => format!("Service {name} has ended; its next start is a normal one."),
    })
}

fn discard(service: &Service) -> Result<String> {
    let had_one = service.has_image();
    service.discard()?;
    let had = if had_one { "has no image any more" } else { "has no image" };
    Ok(format!("Service {} {had}: its next start is a normal one.", service.name))
}

/// A session that is led by a process outside of the tree would have to be there again when the
/// tree is brought back: setsid(2).
fn become_the_program(command: &[OsString]) -> Complaint {
    let failed = |error: &dyn std::fmt::Display| {
        Complaint::failed(format!("start {}: {error}", command[0].display()))
    };
    match setsid() {
        Ok(_) => failed(&Command::new(&command[0]).args(&command[1..]).exec()),
        Err(errno) => failed(&errno),
    }
}
