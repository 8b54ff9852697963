//! Programs move between hosts with kernels of their own, there and back, to another host and into a
//! directory: by soft-dirty pages and by write protection, and to a kernel with another vdso.

use anyhow::{Context as _, Result, ensure};
use std::time::Instant;
use tests::guests::Kernel;
use tests::hosts::{Host, TwoHosts};
use tests::scale::scaled;
use tests::workload::{self, Workload};
use tests::{place, say, wait};

/// As the engine has it: `engine::memory::tracker::ALLOWED`.
const TRACKING: &str = "MIGRATE_TRACKING";

/// With as much to do as a processor without KVM has time for; what tells most comes first.
const WORKLOADS: &[(&str, &[&str])] = &[
    ("writer", &["2"]),
    ("mappings", &[]),
    ("tcp_states", &[]),
    ("threads", &["8"]),
    ("tree", &[]),
    ("clock", &[]),
    ("private_file", &[]),
    ("pipe", &[]),
    ("timers", &[]),
    ("signals", &[]),
    ("counter", &[]),
];

/// Whoever writes as fast as this one would be copied thirty times, and the fourth says no more.
const ROUNDS: &[&str] = &["--max-rounds", "4"];

/// What is stored as well.
const STORED: &[(&str, &[&str])] = &[("mappings", &[]), ("threads", &["8"])];

#[test]
fn linux_6_12_by_soft_dirty_pages_and_by_write_protection() -> Result<()> {
    let name = "kernels linux_6_12";
    between(name, ["6.12", "6.12"], &[Some("soft-dirty"), Some("write-protect")])
}

#[test]
fn linux_6_1_by_soft_dirty_pages() -> Result<()> {
    between("kernels linux_6_1", ["6.1", "6.1"], &[None])
}

/// The newer one takes its best, write protection.
#[test]
fn linux_6_1_and_6_12() -> Result<()> {
    between("kernels linux_6_1_and_6_12", ["6.1", "6.12"], &[None])
}

fn between(name: &str, series: [&'static str; 2], methods: &[Option<&str>]) -> Result<()> {
    let [Some(a), Some(b)] = [Kernel::find(series[0])?, Kernel::find(series[1])?] else {
        let missing = format!("no guests are ready (cargo xtask test --vm): {}", series.join(", "));
        return Ok(say::skip(name, &missing)?);
    };
    for (workload, _) in WORKLOADS {
        workload::executable(workload)?;
    }
    let most = u32::try_from(WORKLOADS.len()).context("so many workloads")?;
    let count = usize::try_from(scaled(most, 5))?;
    let began = Instant::now();
    let mut hosts = TwoHosts::of_guests_with_agents(&a, &b)?;
    let booted = began.elapsed();
    workload::make_ready(&hosts.a)?;
    workload::make_ready(&hosts.b)?;
    for method in methods.iter().copied() {
        hosts.a.set(TRACKING, method);
        hosts.b.set(TRACKING, method);
        everything(&hosts, method, count).with_context(|| format!("{series:?} by {method:?}"))?;
    }
    let (all, booted) = (began.elapsed().as_secs(), booted.as_secs());
    Ok(say::figure(name, &format!("{all} s, of which {booted} s to boot"))?)
}

/// The first `count` of the workloads.
fn everything(hosts: &TwoHosts, method: Option<&str>, count: usize) -> Result<()> {
    for host in [&hosts.a, &hosts.b] {
        can_do_everything(host, method).with_context(|| format!("check {}", host.name()))?;
    }
    for (name, arguments) in &WORKLOADS[..count] {
        there_and_back(hosts, name, arguments).with_context(|| format!("move {name}"))?;
    }
    for (name, arguments) in STORED {
        through_directories(hosts, name, arguments).with_context(|| format!("store {name}"))?;
    }
    Ok(())
}

/// The kernel has what it is known for, and nothing needed is missing.
fn can_do_everything(host: &Host, method: Option<&str>) -> Result<()> {
    let said = host.run(&[&place::program("migrate")?, "check"])?.success()?;
    ensure!(said.contains("This host can send, receive, store and restore."), "{said}");
    let has = |feature: &str| {
        said.lines().any(|line| line.starts_with(feature) && line.contains(" present "))
    };
    let is_old = host.read("/proc/sys/kernel/osrelease")?.starts_with("6.1.");
    ensure!(has("soft-dirty"), "{said}");
    ensure!(has("UFFD_FEATURE_WP_ASYNC") != is_old, "by {method:?}: {said}");
    Ok(())
}

/// Behind all others: what writes without pause would leave a guest's one processor to nobody.
fn start(host: &Host, name: &str, arguments: &[&str]) -> Result<Workload> {
    let program = workload::executable(name)?;
    let argv = [&["nice", "-n", "19", program.as_str()], arguments].concat();
    Workload::start_program(host, name, &argv, &[])
}

fn there_and_back(hosts: &TwoHosts, name: &str, arguments: &[&str]) -> Result<()> {
    let workload = start(&hosts.a, name, arguments)?;
    workload.proves_itself(&hosts.a)?;
    go(hosts, &workload, &hosts.a, &hosts.b).context("there")?;
    go(hosts, &workload, &hosts.b, &hosts.a).context("back")?;
    workload.stop(&hosts.a)
}

fn go(hosts: &TwoHosts, workload: &Workload, from: &Host, to: &Host) -> Result<()> {
    let moved = hosts.migrate(workload.pid, from, to, ROUNDS)?;
    let story = moved.story();
    moved.success().with_context(|| format!("the workload said: {:?}", workload.said()))?;
    workload.proves_itself(to).context(story)?;
    from.end_of(workload.pid, wait::PATIENCE).map(drop)
}

fn through_directories(hosts: &TwoHosts, name: &str, arguments: &[&str]) -> Result<()> {
    let workload = start(&hosts.a, name, arguments)?;
    workload.proves_itself(&hosts.a)?;
    for (round, (from, to)) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)].iter().enumerate() {
        let directory = place::text(&hosts.shared().join(format!("{name}-{}", workload.pid)))?;
        let directory = format!("{directory}-{round}");
        from.dump(workload.pid, &directory, &[])?.success().context("dump")?;
        from.end_of(workload.pid, wait::PATIENCE)?;
        to.restore(&directory, &[])?.success().context("restore")?;
        workload.proves_itself(to)?;
    }
    workload.stop(&hosts.a)
}
