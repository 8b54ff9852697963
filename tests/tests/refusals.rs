//! What cannot be moved: refused with the object's name, and the source's process is as it was, to
//! the last descriptor and mapping.
//!
//! Two hosts on one machine have one processor, and there is one protocol version: what a missing
//! processor feature or another version leads to is proven where `protocol` negotiates.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use tests::footprint::Footprint;
use tests::host_init::Status;
use tests::hosts::{CONFIG, Started, TwoHosts};
use tests::moved::{Moved, exit};
use tests::workload::Workload;
use tests::{place, say, wait};

/// A process on `hosta` of which a move to `to` must fail before the handover.
struct Attempt<'hosts> {
    hosts: &'hosts TwoHosts,
    pid: i32,
    to: &'hosts str,
    /// What the answer must name.
    names: &'hosts [&'hosts str],
}

impl Attempt<'_> {
    fn is_refused(&self) -> Result<Moved> {
        let a = &self.hosts.a;
        let before = Footprint::settled(a, self.pid)?;
        let command = self.hosts.start_migrate(self.pid, a, self.to, &[])?;
        let moved = self.hosts.finish_migrate(a, &command)?;
        let story = moved.story();
        ensure!([exit::REFUSED, exit::FAILED].contains(&moved.exit), "{story}");
        for name in self.names {
            ensure!(story.contains(name), "it does not name {name:?}: {story}");
        }
        before.expect_again(a, self.pid).with_context(|| story.clone())?;
        ensure!(is_running_free(self.hosts, self.pid)?, "it is stopped or traced: {story}");
        Ok(moved)
    }
}

/// Neither stopped nor being traced by the command or what is left of it.
fn is_running_free(hosts: &TwoHosts, pid: i32) -> Result<bool> {
    let status = hosts.a.read(&format!("/proc/{pid}/status"))?;
    Ok(status.contains("\nState:\tS") || status.contains("\nState:\tR"))
}

/// Also refused: for reasons that stand in the answer as refusals, before anything was touched.
fn expect_refusals(moved: &Moved) -> Result<()> {
    ensure!(moved.exit == exit::REFUSED, "{}", moved.story());
    ensure!(!moved.refusals().is_empty(), "{}", moved.story());
    Ok(())
}

#[test]
fn no_such_process() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let moved = hosts.migrate(29_999, &hosts.a, &hosts.b, &[])?;
    ensure!(moved.exit == exit::REFUSED && moved.story().contains("29999"), "{}", moved.story());
    Ok(())
}

/// Kernel threads are only in the machine's first PID namespace, so this asks without hosts.
#[test]
fn a_kernel_thread() -> Result<()> {
    const KTHREADD: &str = "2";
    let status = fs::read_to_string(format!("/proc/{KTHREADD}/status")).unwrap_or_default();
    if !status.starts_with("Name:\tkthreadd\n") {
        return Ok(say::skip("refusals a_kernel_thread", "this PID namespace shows none")?);
    }
    let config = tempfile::tempdir()?;
    let output = Command::new(place::program("migrate")?)
        .args(["check", KTHREADD, "--json", "--config"])
        .arg(config.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(exit::REFUSED), "{:?} {said}", output.status);
    ensure!(said.contains("kernel thread"), "{said}");
    Ok(())
}

#[test]
fn a_traced_process() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let tracer = Workload::start(&hosts.a, "tracer", &[&workload.pid.to_string()])?;
    let names = [&*format!("{}", tracer.pid), "trace"];
    let attempt = Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &names };
    expect_refusals(&attempt.is_refused()?)?;
    hosts.a.signal(tracer.pid, Signal::SIGKILL)?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_does_not_answer() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let known = format!("{CONFIG}/known_hosts");
    let fingerprint = hosts.a.read(&known)?;
    let fingerprint = fingerprint.split_whitespace().nth(1).context("a known host")?;
    hosts.a.write(&known, &format!("192.0.2.77 {fingerprint}\n"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let names = ["192.0.2.77"];
    Attempt { hosts: &hosts, pid: workload.pid, to: "192.0.2.77", names: &names }.is_refused()?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_without_an_agent() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &["hostb"] }.is_refused()?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_we_do_not_know() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write(&format!("{CONFIG}/known_hosts"), "")?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let names = ["hostb", "known_hosts"];
    Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &names }.is_refused()?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_with_another_key_than_we_know() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let own = hosts.b.read(&format!("{CONFIG}/known_hosts"))?;
    let own = own.split_whitespace().nth(1).context("a known host")?.to_owned();
    hosts.a.write(&format!("{CONFIG}/known_hosts"), &format!("hostb {own}\n"))?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &["hostb"] }.is_refused()?;
    workload.stop(&hosts.a)
}

#[test]
fn a_host_that_does_not_authorise_us() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.introduce()?;
    hosts.b.write(&format!("{CONFIG}/authorized_hosts"), "")?;
    tests::hosts::start_agent(&hosts.b)?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &["hostb"] }.is_refused()?;
    workload.stop(&hosts.a)
}

/// Starts `sleep` with a shell's redirections, and waits until the shell has become it.
fn sleeper(hosts: &TwoHosts, redirections: &str) -> Result<Started> {
    let script = format!("exec sleep 1000 {redirections}");
    let sleeper = hosts.a.spawn(&["sh", "-c", &script])?;
    wait::until(
        wait::PATIENCE,
        || "the shell to become sleep".into(),
        || {
            let name = hosts.a.read(&format!("/proc/{}/comm", sleeper.pid))?;
            Ok((name == "sleep\n").then_some(()))
        },
    )?;
    Ok(sleeper)
}

#[test]
fn a_destination_without_the_file() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/only-here", "x")?;
    let sleeper = sleeper(&hosts, "7</tmp/only-here")?;
    let names = ["/tmp/only-here"];
    let attempt = Attempt { hosts: &hosts, pid: sleeper.pid, to: "hostb", names: &names };
    expect_refusals(&attempt.is_refused()?)
}

#[test]
fn a_destination_with_another_file_of_that_name() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/both", "x")?;
    hosts.b.write("/tmp/both", "something longer")?;
    let sleeper = sleeper(&hosts, "7</tmp/both")?;
    let names = ["/tmp/both"];
    let attempt = Attempt { hosts: &hosts, pid: sleeper.pid, to: "hostb", names: &names };
    expect_refusals(&attempt.is_refused()?)
}

#[test]
fn every_blocker_stands_in_one_answer() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    hosts.a.write("/tmp/first", "x")?;
    hosts.a.write("/tmp/second", "x")?;
    let sleeper = sleeper(&hosts, "7</tmp/first 8</tmp/second")?;
    let names = ["/tmp/first", "/tmp/second"];
    let attempt = Attempt { hosts: &hosts, pid: sleeper.pid, to: "hostb", names: &names };
    let moved = attempt.is_refused()?;
    ensure!(moved.refusals().len() >= 2, "{}", moved.story());
    Ok(())
}

#[test]
fn a_destination_with_the_pid_taken() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    // The shell's next child gets the PID after the one written.
    let take =
        format!("echo {} > /proc/sys/kernel/ns_last_pid; sleep 1000 & echo $!", workload.pid - 1);
    let taken = hosts.b.run(&["sh", "-c", &take])?.success()?;
    ensure!(taken.trim() == workload.pid.to_string(), "the sleeper got {taken}");
    let names = [&*workload.pid.to_string()];
    Attempt { hosts: &hosts, pid: workload.pid, to: "hostb", names: &names }.is_refused()?;
    ensure!(hosts.b.read(&format!("/proc/{}/comm", workload.pid))? == "sleep\n");
    workload.stop(&hosts.a)
}

#[test]
fn a_destination_with_too_little_memory() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let little = "MemTotal: 16384 kB\nMemFree: 4096 kB\nMemAvailable: 8192 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";
    hosts.b.write("/tmp/meminfo", little)?;
    hosts.b.run(&["mount", "--bind", "/tmp/meminfo", "/proc/meminfo"])?.success()?;
    let heart = Workload::start(&hosts.a, "heartbeat", &["64"])?;
    let names = ["memory"];
    let attempt = Attempt { hosts: &hosts, pid: heart.pid, to: "hostb", names: &names };
    expect_refusals(&attempt.is_refused()?)
}

#[test]
fn a_connection_that_leads_out_of_the_tree() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let script = "import socket,time; s=socket.create_server(('0.0.0.0',7)); \
        print('ready',flush=True); c=s.accept(); time.sleep(1000)";
    hosts.b.spawn(&["/usr/bin/python3", "-c", script])?;
    let script = "import socket,time\n\
        while True:\n\
        \x20 try: s=socket.create_connection(('192.0.2.2',7)); break\n\
        \x20 except OSError: time.sleep(.01)\n\
        print('ready',flush=True); time.sleep(1000)";
    let argv = ["/usr/bin/python3", "-c", script];
    let client = Workload::start_program(&hosts.a, "client", &argv, &[])?;
    let names = ["192.0.2.2"];
    let attempt = Attempt { hosts: &hosts, pid: client.pid, to: "hostb", names: &names };
    expect_refusals(&attempt.is_refused()?)
}

#[test]
fn a_unix_connection_that_leads_out_of_the_tree() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let script = "import socket,time,os; a,b=socket.socketpair(); pid=os.fork()\n\
        if pid==0: b.close(); os.setsid(); print('ready',flush=True); time.sleep(1000)\n\
        a.close(); time.sleep(1000)";
    let argv = ["/usr/bin/python3", "-c", script];
    let parent = Workload::start_program(&hosts.a, "parent", &argv, &[])?;
    let child = Footprint::of(&hosts.a, parent.pid)?.children;
    let attempt = Attempt { hosts: &hosts, pid: child[0], to: "hostb", names: &["socket"] };
    expect_refusals(&attempt.is_refused()?)
}

#[test]
fn a_process_that_ends_in_mid_copy() -> Result<()> {
    let hosts = TwoHosts::with_agents()?;
    let heart = Workload::start(&hosts.a, "heartbeat", &["128"])?;
    let options = ["--bandwidth", "100"];
    let command = hosts.start_migrate(heart.pid, &hosts.a, "hostb", &options)?;
    wait::until(
        wait::PATIENCE,
        || "the copy to begin".into(),
        || Ok(fs::read_to_string(&command.stdout)?.contains("\"rounds\"").then_some(())),
    )?;
    hosts.a.signal(heart.pid, Signal::SIGKILL)?;
    let moved = hosts.finish_migrate(&hosts.a, &command)?;
    ensure!(moved.exit == exit::FAILED, "{}", moved.story());
    ensure!(moved.story().contains(&heart.pid.to_string()), "{}", moved.story());
    ensure!(hosts.a.status(heart.pid)? == Status::Killed(9), "{}", moved.story());
    wait::until(
        wait::PATIENCE,
        || "the stub on hostb to go".into(),
        || Ok((!hosts.b.exists(heart.pid)).then_some(())),
    )
}

#[test]
fn a_command_line_that_makes_no_sense() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let migrate = place::program("migrate")?;
    for arguments in
        [vec!["12"], vec!["twelve", "--to", "hostb"], vec!["12", "--to", "b", "--lazy", "so"]]
    {
        let argv: Vec<&str> = [migrate.as_str()].iter().chain(&arguments).copied().collect();
        let output = hosts.a.run(&argv)?;
        ensure!(output.status == Status::Exited(exit::USAGE), "{arguments:?}: {output:?}");
    }
    Ok(())
}
