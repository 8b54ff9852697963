//! How QEMU is called for a guest.

use super::archive::Archive;
use super::boot::{MODULES, ROOT_TAG, SETUP, SHARED_TAG, Setup};
use super::{Kernel, QEMU};
use crate::place;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One end of the cable between two guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Waits for the other.
    First,
    Second,
}

/// The same for every guest. Without KVM, QEMU copies byte by byte where the processor has fast string
/// instructions, and tables of five levels are beyond what a program sees.
const PROCESSOR: &str = "max,la57=off,erms=off,fsrm=off";
const MEMORY_MIB: u32 = 768;

/// A guest that talks by its standard input and output, and ends with its input.
pub(crate) fn command(kernel: &Kernel, setup: &Setup, end: End) -> Result<Command> {
    let shared = Path::new(&setup.shared);
    let archive = first_root(kernel, setup)?;
    let console = shared.join(format!("{}-console.log", setup.hostname));
    let cable = cable(shared);
    let (role, mac) = match end {
        End::First => ("on", "52:54:00:00:00:0a"),
        End::Second => ("off", "52:54:00:00:00:0b"),
    };
    // A guest does not outlive the thread that started it.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", QEMU]);
    qemu.args(["-accel", "tcg", "-machine", "q35", "-cpu", PROCESSOR, "-smp", "1"]);
    qemu.args(["-m", &MEMORY_MIB.to_string()]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none"]);
    qemu.args(["-serial", &format!("file:{}", place::text(&console)?)]);
    qemu.args(["-chardev", "stdio,id=requests,signal=off", "-device", "virtio-serial-pci"]);
    qemu.args(["-device", "virtserialport,chardev=requests"]);
    file_system(&mut qemu, ROOT_TAG, "/", ",readonly=on,multidevs=remap");
    file_system(&mut qemu, SHARED_TAG, &setup.shared, "");
    let cable = place::text(&cable)?;
    qemu.args([
        "-netdev",
        &format!("stream,id=net,server={role},addr.type=unix,addr.path={cable}"),
    ]);
    qemu.args(["-device", &format!("virtio-net-pci,netdev=net,mac={mac},romfile=")]);
    qemu.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(archive);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 oops=panic -- boot"]);
    Ok(qemu)
}

/// Where the cable between the guests of a pair is; it is there when its first end is.
pub(crate) fn cable(shared: &Path) -> PathBuf {
    shared.join("cable")
}

fn file_system(qemu: &mut Command, tag: &str, path: &str, more: &str) {
    qemu.args(["-fsdev", &format!("local,id={tag},path={path},security_model=none{more}")]);
    qemu.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
}

/// Our own program with its libraries, the modules, and what it is told.
fn first_root(kernel: &Kernel, setup: &Setup) -> Result<PathBuf> {
    let shared = Path::new(&setup.shared);
    let path = shared.join(format!("{}.cpio", setup.hostname));
    let mut archive = Archive::new(BufWriter::new(fs::File::create(&path)?));
    let program = stripped(&setup.program, shared)?;
    archive.executable("/init", &fs::read(&program)?)?;
    for library in libraries(&program)? {
        archive.executable(&library, &fs::read(&library)?)?;
    }
    for module in kernel.first_modules()? {
        let name = module.file_name().context("a module's name")?.to_string_lossy();
        archive.executable(&format!("{MODULES}/{name}"), &fs::read(&module)?)?;
    }
    archive.executable(SETUP, &serde_json::to_vec(setup)?)?;
    archive.finish()?;
    Ok(path)
}

/// Symbols for debuggers are most of a program, and a guest would carry them in its memory.
fn stripped(program: &str, shared: &Path) -> Result<PathBuf> {
    let path = shared.join("init");
    let strip = Command::new("strip").arg("-o").arg(&path).arg(program).status();
    ensure!(strip.context("run strip (binutils)")?.success(), "strip failed on {program}");
    Ok(path)
}

fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).stderr(Stdio::inherit()).output();
    let said = String::from_utf8(output.context("run ldd (libc-bin)")?.stdout)?;
    let paths: Vec<String> = said
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect();
    ensure!(!paths.is_empty(), "ldd says {said:?} of {}", program.display());
    Ok(paths)
}
