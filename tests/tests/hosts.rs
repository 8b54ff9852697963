//! The two hosts themselves: apart where hosts are apart, joined by the network, gone afterwards.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::host_init::Status;
use tests::hosts::{ADDRESS_B, TwoHosts};
use tests::{place, wait};

#[test]
fn each_host_has_its_name_its_processes_and_its_pids() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let sleeper = hosts.a.spawn(&["sleep", "60"])?;
    assert!((1000..1100).contains(&sleeper.pid), "hosta starts at {}", sleeper.pid);
    assert!(hosts.a.exists(sleeper.pid) && !hosts.b.exists(sleeper.pid));
    assert!(hosts.b.spawn(&["sleep", "60"])?.pid >= 20_000);
    assert_eq!(hosts.a.run(&["hostname"])?.success()?, "hosta\n");
    assert_eq!(hosts.b.run(&["hostname"])?.success()?, "hostb\n");
    Ok(())
}

#[test]
fn every_kind_of_namespace_is_private() -> Result<()> {
    let hosts = TwoHosts::new()?;
    for kind in ["net", "pid", "mnt", "uts", "ipc"] {
        let [a, b] = inits(&hosts);
        let seen = [a, b, "/proc/self".into()].map(|process| process.join("ns").join(kind));
        let seen: Vec<PathBuf> = seen.iter().map(fs::read_link).collect::<Result<_, _>>()?;
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 3, "{kind}: {seen:?}");
    }
    Ok(())
}

#[test]
fn the_hosts_reach_each_other_by_name_and_by_both_protocols() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let python = "/usr/bin/python3";
    let serve = "import socket,sys; s=socket.create_server((sys.argv[1],7),\
        family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET);\
        print('listening',flush=True); s.accept()[0].sendall(b'hello')";
    let call = "import socket,sys; print(socket.create_connection((sys.argv[1],7),20).recv(9))";
    for (listen, name) in [(ADDRESS_B.v4, "hostb"), (ADDRESS_B.v6, ADDRESS_B.v6)] {
        let server = hosts.b.spawn(&[python, "-c", serve, listen])?;
        wait_for_text(&server.stdout, "listening")?;
        assert_eq!(hosts.a.run(&[python, "-c", call, name])?.success()?, "b'hello'\n");
        assert_eq!(hosts.b.end_of(server.pid, wait::PATIENCE)?, Status::Exited(0));
    }
    Ok(())
}

#[test]
fn private_directories_are_private_and_the_shared_one_is_not() -> Result<()> {
    let hosts = TwoHosts::new()?;
    for directory in ["/tmp", "/run", "/dev/shm", "/etc/migrate", "/var/lib/migrate"] {
        let path = format!("{directory}/only-on-a");
        hosts.a.write(&path, "x")?;
        assert_eq!(hosts.a.read(&path)?, "x");
        assert!(!hosts.b.path(&path).exists() && !Path::new(&path).exists(), "{path}");
    }
    let both = hosts.shared().join("both");
    let both = both.to_str().context("a path")?;
    hosts.a.write(both, "x")?;
    assert_eq!(hosts.b.read(both)?, "x");
    Ok(())
}

#[test]
fn a_command_has_a_session_a_status_and_its_output_in_files() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let output =
        hosts.a.run(&["sh", "-c", "cut -d' ' -f1,6 /proc/$$/stat; echo no >&2; exit 7"])?;
    assert_eq!(output.status, Status::Exited(7));
    assert_eq!(output.stderr, "no\n");
    let (pid, session) = output.stdout.trim().split_once(' ').context("two numbers")?;
    assert_eq!(pid, session);
    assert_eq!(hosts.a.run(&["/no/such/program"])?.status, Status::Exited(1));
    Ok(())
}

#[test]
fn a_signal_ends_a_command_and_orphans_are_reaped() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let shell = hosts.a.spawn(&["sh", "-c", "sleep 1000 & echo $!; wait"])?;
    wait_for_text(&shell.stdout, "\n")?;
    let orphan: i32 = fs::read_to_string(&shell.stdout)?.trim().parse()?;
    hosts.a.signal(shell.pid, Signal::SIGKILL)?;
    assert_eq!(hosts.a.end_of(shell.pid, wait::PATIENCE)?, Status::Killed(9));
    assert_eq!(hosts.a.status(orphan)?, Status::Running);
    hosts.a.signal(orphan, Signal::SIGTERM)?;
    assert_eq!(hosts.a.end_of(orphan, wait::PATIENCE)?, Status::Killed(15));
    Ok(())
}

#[test]
fn a_wait_for_an_endless_command_ends_it() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let sleeper = hosts.a.spawn(&["sleep", "1000"])?;
    assert!(hosts.a.finish(&sleeper, Duration::from_millis(50)).is_err());
    assert_eq!(hosts.a.end_of(sleeper.pid, wait::PATIENCE)?, Status::Killed(9));
    Ok(())
}

#[test]
fn no_descriptor_of_the_test_reaches_a_command() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let listing = hosts.a.run(&["sh", "-c", "ls /proc/$$/fd"])?.success()?;
    assert_eq!(listing.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    Ok(())
}

#[test]
fn nothing_is_left_when_the_pair_is_dropped() -> Result<()> {
    let hosts = TwoHosts::new()?;
    hosts.a.spawn(&["sleep", "1000"])?;
    let (shared, inits) = (hosts.shared().to_path_buf(), inits(&hosts));
    drop(hosts);
    assert!(!shared.exists());
    assert_eq!(inits.iter().find(|init| init.exists()), None);
    Ok(())
}

fn inits(hosts: &TwoHosts) -> [PathBuf; 2] {
    [&hosts.a, &hosts.b].map(|host| PathBuf::from(format!("/proc/{}", host.init_pid())))
}

#[test]
fn nothing_is_left_when_the_test_process_is_killed() -> Result<()> {
    let mut maker = Command::new(place::program("two-hosts")?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(maker.stdout.take().context("its output")?);
    let said: Vec<String> = said.lines().take(3).collect::<Result<_, _>>()?;
    let mut left: Vec<PathBuf> = said[..2].iter().filter_map(|line| init_in(line)).collect();
    let netns = fs::read_link(left[0].join("ns/net"))?;
    left.push(said[2].trim_start_matches("shared directory ").into());
    assert!(left.len() == 3 && left.iter().all(|path| path.exists()), "{left:?}");

    maker.kill()?;
    maker.wait()?;
    wait::until(
        wait::PATIENCE,
        || format!("{left:?} to vanish"),
        || Ok(left.iter().all(|path| !path.exists()).then_some(())),
    )?;
    wait::until(
        wait::PATIENCE,
        || format!("{:?} to end", processes_in(&netns)),
        || Ok(processes_in(&netns)?.is_empty().then_some(())),
    )
}

/// The second word of a host's line is PID 1 as seen from here.
fn init_in(line: &str) -> Option<PathBuf> {
    Some(format!("/proc/{}", line.split(' ').nth(1)?).into())
}

fn processes_in(netns: &Path) -> Result<Vec<PathBuf>> {
    let processes = fs::read_dir("/proc")?.map(|entry| Ok(entry?.path()));
    let processes: Vec<PathBuf> = processes.collect::<Result<_>>()?;
    let inside = |path: &PathBuf| fs::read_link(path.join("ns/net")).is_ok_and(|ns| ns == netns);
    Ok(processes.into_iter().filter(inside).collect())
}

fn wait_for_text(file: &Path, text: &str) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("{text:?} in {}", file.display()),
        || Ok(fs::read_to_string(file).is_ok_and(|contents| contents.contains(text)).then_some(())),
    )
}
