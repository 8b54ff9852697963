//! Kernels for guests: Debian's own of two series, and QEMU to boot them. Everything but QEMU and kmod
//! stays below `target/guests`, where `tests::guests` looks for it.

use crate::command::{run, say};
use crate::install;
use crate::packages::Packages;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "target/guests";

/// Of Linux 6.12 (bookworm-backports) and 6.1 (bookworm). Both have soft-dirty pages, and the older one
/// has nothing else to see writes by.
const SERIES: [&str; 2] = ["6.12", "6.1"];

/// What a guest needs before it can see its root.
const FIRST: [&str; 6] =
    ["virtio_pci", "virtio_net", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// What is unpacked of a kernel's package: what the first modules and our own features need. The
/// drivers of real hardware are most of it, and left where they are.
const UNPACKED: [&str; 10] = [
    "./boot/vmlinuz-*",
    "./lib/modules/*/modules.*",
    "./lib/modules/*/kernel/net*",
    "./lib/modules/*/kernel/lib*",
    "./lib/modules/*/kernel/crypto*",
    "./lib/modules/*/kernel/fs*",
    "./lib/modules/*/kernel/drivers/net/*.ko*",
    "./lib/modules/*/kernel/drivers/char*",
    "./lib/modules/*/kernel/drivers/virtio*",
    "./lib/modules/*/kernel/arch*",
];

/// Asks nobody when everything is there.
pub(crate) fn prepare() -> Result<()> {
    let directory = std::env::current_dir()?.join(DIRECTORY);
    let missing: Vec<Kernel> = SERIES
        .iter()
        .map(|series| Kernel { directory: directory.join(series), series })
        .filter(|kernel| !kernel.marker().exists())
        .collect();
    if missing.is_empty() && install::can_boot() {
        return Ok(());
    }
    let packages = Packages::of_debian_12(&directory.join("apt"))?;
    if !install::can_boot() {
        // The backport: the one of Debian 12 would remove what is newer of QEMU's other packages.
        packages.install(&["qemu-system-x86", "kmod", "xz-utils"])?;
    }
    missing.iter().try_for_each(|kernel| kernel.prepare(&packages))
}

struct Kernel {
    directory: PathBuf,
    series: &'static str,
}

impl Kernel {
    /// Written last.
    fn marker(&self) -> PathBuf {
        self.directory.join("ready")
    }

    fn prepare(&self, packages: &Packages) -> Result<()> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory).context("remove what is half done")?;
        }
        fs::create_dir_all(&self.directory).context("make a directory for a kernel")?;
        let package = packages.kernel(self.series)?;
        let file = packages.download(&package, &self.directory)?;
        unpack(&file, &self.directory)?;
        fs::remove_file(&file)?;
        let modules = only_entry(&self.directory.join("lib/modules"))?;
        let release = modules.file_name().context("a release")?.to_string_lossy().into_owned();
        run(Command::new("depmod").arg("-b").arg(&self.directory).arg(&release))?;
        self.choose_first(&release)?;
        fs::rename(only_entry(&self.directory.join("boot"))?, self.directory.join("vmlinuz"))?;
        fs::write(self.marker(), &release)?;
        say(&format!("a guest can have Linux {release}"))
    }

    /// In the order in which they can be loaded.
    fn choose_first(&self, release: &str) -> Result<()> {
        let first = self.directory.join("first");
        fs::create_dir(&first)?;
        let mut chosen: Vec<PathBuf> = Vec::new();
        for name in FIRST {
            for path in self.with_those_before(name, release)? {
                if !chosen.contains(&path) {
                    chosen.push(path);
                }
            }
        }
        for (index, module) in chosen.iter().enumerate() {
            let name = module.file_name().context("a module's name")?.to_string_lossy();
            let name = name.trim_end_matches(".xz");
            plain(module, &first.join(format!("{index:02}-{name}")))?;
        }
        Ok(())
    }

    /// modprobe(8) says `insmod PATH` of each that is not part of the kernel itself.
    fn with_those_before(&self, name: &str, release: &str) -> Result<Vec<PathBuf>> {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(&self.directory).args(["-S", release, "--show-depends", name]);
        let output = modprobe.stderr(Stdio::inherit()).output().context("run modprobe (kmod)")?;
        ensure!(output.status.success(), "modprobe does not know {name} of Linux {release}");
        let said = String::from_utf8(output.stdout)?;
        let paths = said.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(paths.map(|path| PathBuf::from(path.trim())).collect())
    }
}

fn unpack(package: &Path, into: &Path) -> Result<()> {
    let mut open = Command::new("dpkg-deb");
    let mut open = open.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let stream = open.stdout.take().context("the output of dpkg-deb")?;
    let mut tar = Command::new("tar");
    run(tar.arg("-x").arg("-C").arg(into).arg("--wildcards").args(UNPACKED).stdin(stream))?;
    let status = open.wait()?;
    ensure!(status.success(), "dpkg-deb: {status}");
    Ok(())
}

fn plain(module: &Path, into: &Path) -> Result<()> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        fs::copy(module, into)?;
        return Ok(());
    }
    let status = Command::new("xz").arg("-dc").arg(module).stdout(File::create(into)?).status()?;
    ensure!(status.success(), "xz -dc {}: {status}", module.display());
    Ok(())
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory)
        .with_context(|| format!("list {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(entries.len() == 1, "{} has {entries:?}", directory.display());
    entries.pop().context("one entry")
}
