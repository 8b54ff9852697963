//! Two hosts with a kernel each: guests joined by one cable, and by nothing else.

use super::{ADDRESS_A, ADDRESS_B, Host, TwoHosts, bring_up, write_names};
use crate::guests::Kernel;
use crate::guests::boot::Setup;
use crate::guests::machine::{self, End};
use crate::{place, wait};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

impl TwoHosts {
    /// Without agents. What the hosts are to run has to be built: they see the files as they are now.
    pub fn of_guests(a: &Kernel, b: &Kernel) -> Result<Self> {
        let directory = TempDir::with_prefix_in("guests-", place::made("two-hosts")?)?;
        let shared = directory.path().to_path_buf();
        write_names(&shared)?;
        let guest = |kernel, address, setup: Setup, end| {
            let qemu = machine::command(kernel, &setup, end)?;
            Host::boot(address, setup, qemu)
        };
        let a = guest(a, ADDRESS_A, setup("hosta", 1000, a, &shared)?, End::First)?;
        let is_plugged_in = || Ok(machine::cable(&shared).exists().then_some(()));
        wait::until(wait::PATIENCE, || "the cable between two guests".into(), is_plugged_in)?;
        let b = guest(b, ADDRESS_B, setup("hostb", 20_000, b, &shared)?, End::Second)?;
        for host in [&a, &b] {
            host.answers()?;
            connect(host, &shared)?;
        }
        Ok(Self { a, b, shared, agents: Vec::new(), _directory: directory })
    }

    /// Two guests that trust each other, with an agent on both.
    pub fn of_guests_with_agents(a: &Kernel, b: &Kernel) -> Result<Self> {
        let mut hosts = Self::of_guests(a, b)?;
        hosts.start_agents()?;
        Ok(hosts)
    }
}

fn setup(hostname: &str, first_pid: u32, kernel: &Kernel, shared: &Path) -> Result<Setup> {
    Ok(Setup {
        hostname: hostname.into(),
        first_pid,
        shared: place::text(shared)?,
        modules: place::text(&kernel.modules())?,
        program: place::program("host-init")?,
    })
}

fn connect(host: &Host, shared: &Path) -> Result<()> {
    let batch = shared.join(format!("{}-ip", host.name()));
    fs::write(&batch, bring_up(host.address()))?;
    let said = host.run(&["ip", "-batch", &place::text(&batch)?])?.success();
    said.map(drop).with_context(|| format!("bring up the network of {}", host.name()))
}
