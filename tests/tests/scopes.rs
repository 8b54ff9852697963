//! The control group of a tree that was moved.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tests::hosts::TwoHosts;
use tests::wait;
use tests::workload::Workload;

/// For the agent to look for empty ones.
const SWEEP_LIMIT: Duration = Duration::from_secs(20);

/// Where cgroup v2 is, and the directory of a process beneath it.
fn cgroup_of(pid: &str, root: &Path, hosts: &TwoHosts) -> Result<std::path::PathBuf> {
    let text = hosts.b.read(&format!("/proc/{pid}/cgroup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    let path = line.with_context(|| format!("no cgroup v2 in {text:?}"))?;
    Ok(root.join(path.trim_start_matches('/')))
}

fn version_2() -> Result<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut points = mounts.lines().filter(|line| line.contains(" cgroup2 "));
    let point = points.next().and_then(|line| line.split(' ').nth(1));
    Ok(point.context("this test needs cgroup v2 to be mounted")?.into())
}

#[test]
fn a_moved_tree_is_not_in_the_agents_control_group_and_its_own_goes_with_it() -> Result<()> {
    let root = version_2()?;
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "tree", &[])?;
    hosts.migrate(workload.pid, &hosts.a, &hosts.b, &[])?.success()?;
    workload.proves_itself(&hosts.b)?;
    let own = cgroup_of(&workload.pid.to_string(), &root, &hosts)?;
    let name = own.file_name().context("a name")?.to_string_lossy().into_owned();
    assert!(name.starts_with("migrate-") && name.ends_with(".scope"), "{name}");
    assert_ne!(own, cgroup_of(&hosts.agent_pids()[1].to_string(), &root, &hosts)?);
    let members = std::fs::read_to_string(own.join("cgroup.procs"))?;
    assert!(members.lines().count() > 1, "the children are there as well: {members:?}");
    // The agent's end is not the tree's.
    hosts.b.signal(hosts.agent_pids()[1], Signal::SIGTERM)?;
    hosts.b.end_of(hosts.agent_pids()[1], SWEEP_LIMIT)?;
    workload.proves_itself(&hosts.b)?;
    let _again = tests::hosts::start_agent(&hosts.b)?;
    workload.stop(&hosts.b)?;
    wait::until(
        SWEEP_LIMIT,
        || format!("{} to be removed", own.display()),
        || Ok((!own.exists()).then_some(())),
    )
}
