//! `migrate ca`: certifies the keys of hosts, so that they need not be listed one by one.

use crate::cli::{Ca, CaStep, Sign};
use crate::complaint::Complaint;
use crate::identity::read;
use crate::output::print;
use anyhow::{Context as _, Result};
use link::{Authority, IssueError, Terms, TrustFileError, utc};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For clocks that go a little after ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);

pub(crate) fn run(ca: &Ca) -> Result<ExitCode> {
    match &ca.step {
        CaStep::Create { name, place } => create(&place.ca, name),
        CaStep::Show { place } => {
            show(&Authority::load(&place.ca)?);
            Ok(ExitCode::SUCCESS)
        }
        CaStep::Sign(sign) => sign_host(sign),
    }
}

fn create(path: &Path, name: &str) -> Result<ExitCode> {
    match Authority::create(path, name) {
        Ok(authority) => {
            show(&authority);
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ IssueError::File(TrustFileError::Exists { .. })) => {
            let there = Authority::load(path)?.fingerprint();
            Ok(Complaint::refused(format!("{error}: {there}")).say())
        }
        Err(error) => Err(error.into()),
    }
}

fn show(authority: &Authority) {
    let key = authority.fingerprint();
    print(&format!("{} is the CA {key}.", authority.name()));
    print("Hosts trust it for every name, or for those that match a pattern, by this line in");
    print("authorized_hosts (of destinations) and known_hosts (of sources):");
    print(&format!("@cert-authority {key} *"));
}

fn sign_host(sign: &Sign) -> Result<ExitCode> {
    let authority = Authority::load(&sign.place.ca)?;
    let public_key = read(&sign.key)?;
    let now = SystemTime::now();
    let until = now.checked_add(sign.valid.0).context("it would be valid for too long")?;
    let terms = Terms {
        names: sign.name.clone(),
        roles: sign.r#for.roles(),
        from: now - CLOCKS_APART,
        until,
        serial: sign.serial,
    };
    let issue = match authority.sign(&public_key, &sign.key, &terms) {
        Err(error @ IssueError::SerialTaken(_)) => {
            return Ok(Complaint::refused(format!("nothing was signed: {error}")).say());
        }
        issued => issued?,
    };
    let until = utc(until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    eprintln!(
        "Signed: serial {} for {}, key {}, until {until}.",
        issue.serial,
        sign.name.join(", "),
        issue.fingerprint
    );
    print(issue.pem.trim_end());
    Ok(ExitCode::SUCCESS)
}
