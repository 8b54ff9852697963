//! A real agent in a process of its own, with a home of its own.

use crate::Result;
use crate::program::until;
use anyhow::Context as _;
use link::{Fingerprint, Identity};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) fingerprint: Fingerprint,
    /// Of the one source that may send here.
    pub(crate) source: Arc<Identity>,
    home: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start() -> Result<Self> {
        Self::with_policy("")
    }

    pub(crate) fn with_policy(policy: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let source = Arc::new(Identity::load_or_create(&home.path().join("source"))?);
        let config = home.path().join("config");
        let fingerprint = Identity::load_or_create(&config)?.fingerprint();
        fs::write(config.join("authorized_hosts"), format!("{}\n", source.fingerprint()))?;
        fs::write(config.join("policy.toml"), policy)?;
        let (child, address) = spawn(home.path())?;
        Ok(Self { child, address, fingerprint, source, home })
    }

    pub(crate) fn write_policy(&self, policy: &str) -> Result {
        self.write("policy.toml", policy)
    }

    /// A file of its configuration.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result {
        Ok(fs::write(self.home.path().join("config").join(name), text)?)
    }

    /// A hook that adds what it is told to the file of its name, which [`Self::hook_calls`] reads.
    pub(crate) fn hook(&self, point: &str) -> Result {
        let directory = self.home.path().join("config/hooks");
        fs::create_dir_all(&directory)?;
        let calls = self.home.path().join(point);
        let told = "$MIGRATE_HOOK $MIGRATE_PID $MIGRATE_ADDRESSES";
        fs::write(
            directory.join(point),
            format!("#!/bin/sh\necho {told} >> {}\n", calls.display()),
        )?;
        fs::set_permissions(directory.join(point), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// What the hook was told, a line for each time that it was run.
    pub(crate) fn hook_calls(&self, point: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.home.path().join(point)).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The lines of its log that have these words.
    pub(crate) fn log_lines(&self, words: &str) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.contains(words)).count())
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.home.path().join("log"))?)
    }

    pub(crate) fn kill_and_start_again(&mut self) -> Result {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.address) = spawn(self.home.path())?;
        Ok(())
    }
}

impl Agent {
    /// Descriptors that it has open, and children that it has, dead ones included.
    pub(crate) fn belongings(&self) -> Result<(usize, usize)> {
        let pid = self.child.id();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let mut children = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end while we look.
            let text = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            children += text.split_whitespace().count();
        }
        Ok((descriptors, children))
    }

    /// The migrations that its journal knows.
    pub(crate) fn journal(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(self.home.path().join("state/destination"))?
            .map(|file| file.map(|file| file.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| !name.contains('.')).collect())
    }

    /// Images that copies are made of.
    pub(crate) fn images(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(self.home.path().join("state"))?
            .map(|file| file.map(|file| file.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name.starts_with("clone-")).collect())
    }

    /// Files that it has left behind, apart from the journal itself.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(self.home.path().join("state/destination"))?
            .map(|file| file.map(|file| file.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name.contains('.')).collect())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(home: &Path) -> Result<(Child, SocketAddr)> {
    let said = home.join("said");
    let child = Command::new(env!("CARGO_BIN_EXE_dest-agent"))
        .args(["--listen", "127.0.0.1:0"])
        .arg("--config")
        .arg(home.join("config"))
        .arg("--state")
        .arg(home.join("state"))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&said)?)
        .stderr(fs::File::options().create(true).append(true).open(home.join("log"))?)
        .spawn()
        .context("start dest-agent")?;
    let line = until("dest-agent to listen", || {
        fs::read_to_string(&said).ok().filter(|text| text.ends_with('\n'))
    })?;
    let address = line.split(' ').nth(2).context("an address")?.parse()?;
    Ok((child, address))
}
