//! The program that is moved, on hosts that are made for one run.

use super::cost::{between_ms, now_us};
use super::load::{Load, Program, REDIS_MIB};
use super::rate::Done;
use crate::heartbeat::{Report, last_report, reports};
use crate::hosts::{Host, SERVICE, SERVICE_V4, TwoHosts};
use crate::redis::{RunningCrowd, server};
use crate::wait;
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::ops::Range;
use std::time::Duration;

/// How long it is watched before anything is done to it; it says nothing in its first moments.
pub(super) const BEFORE: Duration = Duration::from_millis(500);
const FIRST_MOMENTS: Duration = Duration::from_millis(200);

/// Verifying gigabytes on a loaded machine.
const VERIFICATION: Duration = Duration::from_secs(120);

pub(super) struct Scene {
    pub(super) hosts: TwoHosts,
    pub(super) pid: i32,
    seen_by: Witness,
}

/// Who sees the downtime.
enum Witness {
    Itself(Workload),
    Clients { crowd: RunningCrowd, host: Host, mark: usize },
}

/// As it was seen.
pub(super) enum Downtime {
    OfItself(Report),
    OfClients(f64),
}

impl Downtime {
    pub(super) fn ms(&self) -> f64 {
        match self {
            Self::OfItself(report) => between_ms(0, report.max_gap_us),
            Self::OfClients(ms) => *ms,
        }
    }

    /// How much of it lies in this span of the wall clock. None where nobody knows when it was.
    pub(super) fn within_ms(&self, span_us: Range<u64>) -> Option<f64> {
        match self {
            Self::OfItself(report) => Some(between_ms(0, report.max_gap_within(span_us))),
            Self::OfClients(_) => None,
        }
    }
}

impl Scene {
    pub(super) fn prepare(load: &Load) -> Result<Self> {
        match load.program {
            Program::Load(arguments) => Self::alone(arguments),
            Program::Redis { clients } => Self::with_clients(clients),
        }
    }

    fn alone(arguments: &[&str]) -> Result<Self> {
        let hosts = TwoHosts::with_agents()?;
        let program = Workload::start(&hosts.a, "load", arguments)?;
        Ok(Self { hosts, pid: program.pid, seen_by: Witness::Itself(program) })
    }

    fn with_clients(count: usize) -> Result<Self> {
        let (hosts, host) = TwoHosts::with_clients()?;
        let pid = server::start(&hosts, &hosts.a)?.pid;
        let [keys, bytes] = redis_data();
        server::client(&hosts.a, &hosts.a, &["fill", &keys, &bytes])?;
        let crowd = RunningCrowd::start_patient(&host, SERVICE.v4, count, CLIENTS_PATIENCE_S)?;
        crowd.goes_on()?;
        Ok(Self { hosts, pid, seen_by: Witness::Clients { crowd, host, mark: 0 } })
    }

    /// The address that has to move with it, if it has one.
    pub(super) fn address(&self) -> Option<&'static str> {
        matches!(self.seen_by, Witness::Clients { .. }).then_some(SERVICE_V4)
    }

    /// Watches it for a while; what it sees from then on counts.
    pub(super) fn begin(&mut self) -> Result<()> {
        std::thread::sleep(FIRST_MOMENTS + BEFORE);
        match &mut self.seen_by {
            // It forgets at its next beat.
            Witness::Itself(program) => {
                self.hosts.a.signal(program.pid, Signal::SIGUSR1)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Witness::Clients { crowd, mark, .. } => *mark = crowd.mark()?,
        }
        Ok(())
    }

    /// The longest that it, or one of its clients, stood still since then. To be asked when it has moved.
    pub(super) fn downtime(&self) -> Result<Downtime> {
        match &self.seen_by {
            Witness::Itself(program) => {
                let now = now_us();
                let later = wait::until(
                    wait::PATIENCE,
                    || "a report after the move".into(),
                    || Ok(last_report(&program.said()?).filter(|report| report.at_us > now)),
                )?;
                Ok(Downtime::OfItself(later))
            }
            Witness::Clients { crowd, mark, .. } => {
                crowd.goes_on()?;
                Ok(Downtime::OfClients(crowd.longest_stall_ms(*mark)?))
            }
        }
    }

    /// What it has done, from its start.
    pub(super) fn done(&self) -> Result<Vec<Done>> {
        Ok(match &self.seen_by {
            Witness::Itself(program) => {
                let reports = reports(&program.said()?);
                let works = reports.iter().any(|report| report.work > 0);
                let done = reports.into_iter().map(|report| {
                    let work = if works { report.work } else { report.beats };
                    Done { at_us: report.at_us, work }
                });
                done.collect()
            }
            Witness::Clients { crowd, .. } => {
                let reports = crowd.reports()?.into_iter();
                reports.map(|one| Done { at_us: one.at_us, work: one.acknowledged }).collect()
            }
        })
    }

    /// Looks at everything it has, on the destination.
    pub(super) fn is_whole(&self) -> Result<()> {
        match &self.seen_by {
            Witness::Itself(program) => {
                self.hosts.b.signal(program.pid, Signal::SIGUSR2)?;
                let report = wait::until(
                    VERIFICATION,
                    || "a verification".into(),
                    || Ok(last_report(&program.said()?).filter(|report| report.verified > 0)),
                )?;
                let bad = report.bad_word;
                ensure!(bad == -1, "it came without all it had: the first that is wrong is {bad}");
            }
            Witness::Clients { crowd, host, .. } => {
                let [keys, bytes] = redis_data();
                crowd.stop(host).context("the clients of redis")?;
                server::client(&self.hosts.b, &self.hosts.b, &["verify", &keys, &bytes])?;
            }
        }
        Ok(())
    }
}

/// Longer than any downtime that is to be measured.
const CLIENTS_PATIENCE_S: u64 = 30;

/// How many keys, of how many bytes.
fn redis_data() -> [String; 2] {
    const VALUE_BYTES: u64 = 16 * 1024;
    [(REDIS_MIB << 20) / VALUE_BYTES, VALUE_BYTES].map(|number| number.to_string())
}
