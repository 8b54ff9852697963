//! Images that have the files of their tree with them.

use super::directory;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use tests::host_init::Status;
use tests::hosts::{Host, Started, TwoHosts};
use tests::moved::exit;
use tests::wait;

/// In a directory that every host has for itself: a program of its own, and what it reads and writes.
const INSTALL: &str = "
mkdir -p /tmp/app/bin && cp /usr/bin/perl /tmp/app/bin/counter && chmod 4711 /tmp/app/bin/counter &&
chown 12:34 /tmp/app && head -c 300000 /dev/urandom > /tmp/app/data && truncate -s 8M /tmp/app/data &&
chmod 640 /tmp/app/data && chown 12:34 /tmp/app/data && touch -d 2001-02-03 /tmp/app/data";

/// Has one file open to read, and writes to another.
const COUNT: &str =
    "open my $data, '<', '/tmp/app/data' or die; open my $log, '>', '/tmp/app/log' or die;
while (1) { select undef, undef, undef, 0.02; syswrite $log, ++$n . qq(\n) }";

fn started(host: &Host) -> Result<Started> {
    host.run(&["/bin/sh", "-c", INSTALL])?.success()?;
    let counter = host.spawn(&["/tmp/app/bin/counter", "-e", COUNT])?;
    wait::until(
        wait::PATIENCE,
        || counter.story(),
        || Ok(lines(host).is_ok_and(|lines| lines > 3).then_some(())),
    )?;
    Ok(counter)
}

fn lines(host: &Host) -> Result<usize> {
    Ok(host.run(&["cat", "/tmp/app/log"])?.success()?.lines().count())
}

fn facts(host: &Host) -> Result<String> {
    let script = "cd /tmp/app && stat -c '%n %a %u %g %s' . bin bin/counter data && stat -c %Y data \
                  && sha256sum data bin/counter && test $(stat -c %b data) -lt 1000";
    host.run(&["/bin/sh", "-c", script])?.success()
}

fn goes_on(host: &Host, before: usize) -> Result<()> {
    wait::until(
        wait::PATIENCE,
        || format!("{before} lines to become more: {:?}", lines(host)),
        || Ok((lines(host)? > before + 3).then_some(())),
    )?;
    let log = host.run(&["cat", "/tmp/app/log"])?.success()?;
    let numbers: Vec<String> = (1..=log.lines().count()).map(|n| n.to_string()).collect();
    ensure!(log.lines().eq(numbers.iter().map(String::as_str)), "{log}");
    Ok(())
}

#[test]
fn a_program_comes_back_on_a_host_that_has_none_of_its_files() -> Result<()> {
    for seal in [&[][..], &["--encrypt-to", super::failures::RECIPIENT]] {
        let hosts = TwoHosts::new()?;
        let counter = started(&hosts.a)?;
        let before = facts(&hosts.a)?;
        let image = directory(&hosts, "image")?;
        let said =
            hosts.a.dump(counter.pid, &image, &[&["--copy-files"], seal].concat())?.success()?;
        ensure!(said.contains("\"file_bytes\":"), "{said}");
        hosts.a.end_of(counter.pid, wait::PATIENCE)?;
        let written = lines(&hosts.a)?;
        let key = directory(&hosts, "key")?;
        fs::write(&key, super::failures::IDENTITY)?;
        let opening: &[&str] = if seal.is_empty() { &[] } else { &["--identity", &key] };
        let verify = [&["image", "verify", &image][..], opening].concat();
        hosts.b.image_command(&verify)?.success()?;
        let show = [&["image", "show", &image][..], opening].concat();
        let shown = hosts.b.image_command(&show)?.success()?;
        ensure!(shown.contains("4711 0:0") && shown.contains("/tmp/app/bin/counter"), "{shown}");
        // Without them it is refused, and with them it is not.
        let refused = hosts.b.restore(&image, opening)?;
        ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
        ensure!(refused.stdout.contains("/tmp/app/bin/counter"), "{refused:?}");
        let said = hosts.b.restore(&image, &[&["--copy-files"], opening].concat())?.success()?;
        ensure!(said.contains("3 files were put in"), "{said}");
        goes_on(&hosts.b, written)?;
        ensure!(facts(&hosts.b)? == before, "{} is not {before}", facts(&hosts.b)?);
        hosts.b.signal(counter.pid, Signal::SIGKILL)?;
    }
    Ok(())
}

#[test]
fn a_restore_that_is_refused_or_fails_leaves_no_file() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let counter = started(&hosts.a)?;
    let image = directory(&hosts, "image")?;
    hosts.a.dump(counter.pid, &image, &["--copy-files"])?.success()?;
    hosts.a.end_of(counter.pid, wait::PATIENCE)?;
    let none_is_there = || hosts.b.run(&["test", "!", "-e", "/tmp/app"])?.success().map(drop);
    // One that differs, though it is as long.
    let other = "mkdir /tmp/app && truncate -s 8M /tmp/app/data && chmod 600 /tmp/app/data";
    hosts.b.run(&["/bin/sh", "-c", other])?.success()?;
    let refused = hosts.b.restore(&image, &["--copy-files"])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    let named = refused.stdout.contains("/tmp/app/data has other content here");
    ensure!(named && !refused.stdout.contains("counter"), "{refused:?}");
    let left = hosts.b.run(&["find", "/tmp/app", "-printf", "%p %m %s\n"])?.success()?;
    ensure!(left.lines().count() == 2 && left.contains("/tmp/app/data 600 8388608"), "{left}");
    hosts.b.run(&["rm", "-r", "/tmp/app"])?.success()?;
    // Refused for something else: its ids.
    let mut pages = fs::read(Path::new(&image).join("pages"))?;
    let taken =
        format!("echo {} > /proc/sys/kernel/ns_last_pid; sleep 600 & wait", counter.pid - 1);
    let taker = hosts.b.spawn(&["/bin/sh", "-c", &taken])?;
    wait::until(
        wait::PATIENCE,
        || "its id to be taken".into(),
        || Ok(hosts.b.exists(counter.pid).then_some(())),
    )?;
    let refused = hosts.b.restore(&image, &["--copy-files"])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    none_is_there()?;
    hosts.b.signal(taker.pid, Signal::SIGKILL)?;
    hosts.b.signal(counter.pid, Signal::SIGKILL)?;
    hosts.b.end_of(counter.pid, wait::PATIENCE)?;
    // Cut off.
    pages.truncate(pages.len() / 2);
    fs::write(Path::new(&image).join("pages"), &pages)?;
    let failed = hosts.b.restore(&image, &["--copy-files"])?;
    ensure!(failed.status == Status::Exited(exit::FAILED), "{failed:?}");
    ensure!(failed.stdout.contains("pages"), "{failed:?}");
    none_is_there()
}

#[test]
fn more_than_is_admitted_is_refused_before_anything_is_stopped() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let counter = started(&hosts.a)?;
    let image = directory(&hosts, "image")?;
    let refused = hosts.a.dump(counter.pid, &image, &["--copy-files", "--copy-files-max", "1"])?;
    ensure!(refused.status == Status::Exited(exit::REFUSED), "{refused:?}");
    ensure!(refused.stdout.contains("--copy-files-max"), "{refused:?}");
    ensure!(!Path::new(&image).exists(), "there is an image");
    goes_on(&hosts.a, lines(&hosts.a)?)?;
    hosts.a.signal(counter.pid, Signal::SIGKILL)
}
