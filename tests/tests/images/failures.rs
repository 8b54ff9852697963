//! What goes wrong is said, and nothing is half done.

use super::directory;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tests::footprint::Footprint;
use tests::host_init::Status;
use tests::hosts::{Host, TwoHosts};
use tests::moved::exit;
use tests::scale::scaled;
use tests::workload::Workload;
use tests::{place, say, wait};

/// Whoever brings the pages is killed: nobody may read zeros instead.
#[test]
fn a_tree_dies_with_whoever_brings_its_pages() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "writer", &[&scaled(512, 64).to_string()])?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(workload.pid, &directory, &[])?.success()?;
    hosts.a.end_of(workload.pid, wait::PATIENCE)?;
    let migrate = place::program("migrate")?;
    let restore = hosts.b.spawn(&[&migrate, "restore", "-D", &directory, "--lazy"])?;
    wait::until(
        wait::PATIENCE,
        || "it to run".into(),
        || {
            let story = restore.story();
            ensure!(hosts.b.exists(restore.pid), "it ended: {story}");
            Ok(story.contains("runs again").then_some(()))
        },
    )?;
    hosts.b.signal(restore.pid, Signal::SIGKILL)?;
    wait::until(
        wait::PATIENCE,
        || "its end".into(),
        || Ok((!hosts.b.exists(workload.pid)).then_some(())),
    )?;
    let said = workload.said()?;
    ensure!(!said.contains("bad") && !said.contains("BAD"), "it read something else: {said}");
    Ok(())
}

/// What goes wrong is said, the process runs on as if nobody had asked, and nothing is left.
fn dump_fails(
    name: &str,
    options: &[&str],
    spoil: impl Fn(&Host, &Path) -> Result<()>,
    why: &str,
) -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "counter", &[])?;
    let before = Footprint::settled(&hosts.a, workload.pid)?;
    let directory = hosts.shared().join(name);
    spoil(&hosts.a, &directory)?;
    let output = hosts.a.dump(workload.pid, &place::text(&directory)?, options)?;
    ensure!(output.status == Status::Exited(exit::FAILED), "{output:?}");
    ensure!(output.stdout.contains(why), "{output:?}");
    match name {
        // The one that was there, and all of it.
        "taken" => {
            let verify = ["image", "verify", &place::text(&directory)?];
            hosts.a.image_command(&verify)?.success()?;
        }
        _ => ensure!(!directory.join("manifest").exists(), "there is an image"),
    }
    before.expect_again(&hosts.a, workload.pid)?;
    workload.proves_itself(&hosts.a)?;
    workload.stop(&hosts.a)
}

#[test]
fn a_full_disk_fails_a_dump() -> Result<()> {
    let small = |host: &Host, directory: &Path| {
        fs::create_dir(directory)?;
        let path = place::text(directory)?;
        host.run(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", &path])?.success().map(drop)
    };
    dump_fails("full", &["--compress", "none"], small, "No space left on device")
}

#[test]
fn a_directory_that_cannot_be_written_fails_a_dump() -> Result<()> {
    let read_only = |host: &Host, directory: &Path| {
        fs::create_dir(directory)?;
        let path = place::text(directory)?;
        host.run(&["mount", "-t", "tmpfs", "-o", "ro", "none", &path])?.success().map(drop)
    };
    dump_fails("read-only", &[], read_only, "Read-only file system")
}

#[test]
fn an_image_that_is_there_fails_a_dump() -> Result<()> {
    let taken = |host: &Host, directory: &Path| {
        let sleep = host.spawn(&["/bin/sleep", "600"])?;
        host.dump(sleep.pid, &place::text(directory)?, &[])?.success().map(drop)
    };
    dump_fails("taken", &[], taken, "holds an image already")
}

#[test]
fn a_parent_that_is_gone_fails_a_dump() -> Result<()> {
    dump_fails("orphan", &["--parent", "/no/such/image"], |_, _| Ok(()), "/no/such/image")
}

#[test]
fn what_stands_against_a_restore_is_said_at_once_and_nothing_is_started() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let sleep = hosts.a.spawn(&["/bin/sleep", "600"])?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(sleep.pid, &directory, &["--leave-running"])?.success()?;
    // Its ids are taken: by itself.
    let taken = hosts.a.restore(&directory, &[])?;
    ensure!(taken.status == Status::Exited(exit::REFUSED), "{taken:?}");
    ensure!(taken.stdout.contains(&format!("process {}", sleep.pid)), "{taken:?}");
    ensure!(hosts.a.exists(sleep.pid), "it is gone");
    hosts.a.signal(sleep.pid, Signal::SIGKILL)?;
    // Damaged: no part of it may run.
    for (file, at) in [("manifest", 40), ("tree", 200), ("index", 60), ("pages", 5000)] {
        let path = Path::new(&directory).join(file);
        let whole = fs::read(&path)?;
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged)?;
        let output = hosts.b.restore(&directory, &[])?;
        ensure!(output.status == Status::Exited(exit::FAILED), "{file}: {output:?}");
        ensure!(output.stdout.contains(file), "{file}: {output:?}");
        ensure!(!hosts.b.exists(sleep.pid), "{file}: a part of it is there");
        fs::write(&path, &whole)?;
    }
    hosts.b.restore(&directory, &[])?.success()?;
    hosts.b.signal(sleep.pid, Signal::SIGKILL)
}

/// Whatever it was about to do: it runs on as it was, and what there is in the directory is an image
/// or none.
#[test]
fn a_dump_that_is_killed_leaves_the_program_running() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "threads", &["10"])?;
    let (migrate, pid) = (place::program("migrate")?, workload.pid.to_string());
    let mut left_whole = 0;
    for delay_ms in [0, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400] {
        let directory = directory(&hosts, &delay_ms.to_string())?;
        let argv = [&migrate, "dump", "-D", &directory, "-t", &pid, "--leave-running"];
        let dump = hosts.a.spawn(&argv)?;
        // Before that it was only looked at.
        let pages = Path::new(&directory).join("pages");
        wait::until(
            wait::PATIENCE,
            || dump.story(),
            || Ok(fs::metadata(&pages).is_ok_and(|pages| pages.len() > 0).then_some(())),
        )?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        // One that is done already has nothing to lose.
        let _ = hosts.a.signal(dump.pid, Signal::SIGKILL);
        hosts.a.end_of(dump.pid, wait::PATIENCE)?;
        workload.proves_itself(&hosts.a).with_context(|| format!("after {delay_ms} ms"))?;
        let is_whole = Path::new(&directory).join("manifest").exists();
        let verified = hosts.a.image_command(&["image", "verify", &directory])?;
        ensure!(is_whole == verified.success().is_ok(), "{directory} is neither image nor none");
        left_whole += usize::from(is_whole);
        // The next one clears away what that one has left.
        if !is_whole {
            hosts.a.dump(workload.pid, &directory, &["--leave-running"])?.success()?;
        }
    }
    say::figure("dumps that were killed", &format!("{left_whole} of 12 were whole by then"))?;
    workload.stop(&hosts.a)
}

/// The key of age's own test vectors: everybody has it.
pub(super) const IDENTITY: &str =
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
pub(super) const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

#[test]
fn what_is_encrypted_comes_back_with_its_key_alone() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let workload = Workload::start(&hosts.a, "threads", &["10"])?;
    let key = directory(&hosts, "key")?;
    fs::write(&key, format!("{IDENTITY}\n"))?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(workload.pid, &directory, &["--encrypt-to", RECIPIENT])?.success()?;
    hosts.a.end_of(workload.pid, wait::PATIENCE)?;
    for file in fs::read_dir(&directory)? {
        let path = file?.path();
        ensure!(fs::read(&path)?.starts_with(b"age-encryption.org/"), "{}", path.display());
    }
    let without = hosts.b.restore(&directory, &[])?;
    ensure!(without.status == Status::Exited(exit::FAILED), "{without:?}");
    ensure!(without.stdout.contains("identity"), "{without:?}");
    hosts.b.restore(&directory, &["--identity", &key, "--lazy"])?.success()?;
    workload.proves_itself(&hosts.b)?;
    workload.stop(&hosts.b)
}

#[test]
fn a_page_that_cannot_be_read_ends_a_lazy_restore_and_its_tree() -> Result<()> {
    let hosts = TwoHosts::new()?;
    let holds = "x = open('/dev/urandom', 'rb').read(8 << 20); import time; time.sleep(600)";
    let python = hosts.a.spawn(&["/usr/bin/python3", "-c", holds])?;
    wait::until(
        wait::PATIENCE,
        || "its memory".into(),
        || {
            let status = hosts.a.read(&format!("/proc/{}/status", python.pid))?;
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            Ok(kib.filter(|kib| *kib > 12 << 10).map(drop))
        },
    )?;
    let directory = directory(&hosts, "image")?;
    hosts.a.dump(python.pid, &directory, &["--compress", "none"])?.success()?;
    hosts.a.end_of(python.pid, wait::PATIENCE)?;
    let path = Path::new(&directory).join("pages");
    let mut pages = fs::read(&path)?;
    let middle = pages.len() / 2;
    pages[middle] ^= 1;
    fs::write(&path, pages)?;
    let restored = hosts.b.image_command(&["restore", "-D", &directory, "--lazy"])?;
    ensure!(restored.status == Status::Exited(exit::FAILED), "{restored:?}");
    ensure!(restored.stderr.contains("changed on the disk"), "{restored:?}");
    wait::until(
        wait::PATIENCE,
        || "its end".into(),
        || Ok((!hosts.b.exists(python.pid)).then_some(())),
    )
}
