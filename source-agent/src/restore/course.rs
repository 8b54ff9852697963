//! A restore from the image to a tree that runs.

use super::admission::Admission;
use super::{files, original};
use crate::attempt::new_id;
use crate::cli::{Connections, Restore};
use crate::ending::Ending;
use crate::events::{Event, RestoreSummary};
use crate::hello;
use crate::inspection::refusal;
use crate::output::Output;
use crate::spare_ids;
use engine::clocks::Clocks;
use engine::descriptors::{self, DescriptorsImage};
use engine::image::copied::PutIn;
use engine::image::manifest::Known;
use engine::image::{Fill, Playback, Served, StoredImage, decode};
use engine::inventory::{self, Inventory};
use engine::memory::PAGE_BYTES;
use engine::memory::holder::Holder;
use engine::memory::lazy::LazyMemory;
use engine::restore::{self, Restored};
use engine::{Error, Object, OnObject as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::Refusal;
use protocol::version::{Hello, Mismatch, Offered, What, agree, lacking};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the last processes of a tree that has ended may take to be gone.
const END_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Course {
    playback: Playback,
    /// Connections whose peers are to hear that they are over.
    dismissed: Option<DescriptorsImage>,
    put_in: PutIn,
    began: Instant,
}

/// A tree that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    lazy: Option<Lazy>,
    took: Duration,
    pub(crate) missing_pages: u64,
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
struct Lazy {
    served: Served,
    memory: Arc<LazyMemory>,
    holder: Arc<Holder>,
}

impl Course {
    /// Opens the image and looks whether this host can take the tree.
    pub(super) fn begin(restore: &Restore, admission: &dyn Admission) -> Result<Self, Ending> {
        let began = Instant::now();
        let (image, ours) = thread::scope(|scope| {
            // It tries out what the kernel can, which takes as long as reading the image.
            let ours = scope.spawn(hello::of_this_host);
            let identities = restore.opening.identities()?;
            let image = match restore.stands_alone {
                true => StoredImage::open_alone(&restore.directory, &identities)?,
                false => StoredImage::open(&restore.directory, &identities)?,
            };
            Ok::<_, Ending>((image, ours.join().unwrap_or_else(|panic| resume_unwind(panic))?))
        })?;
        let is_cut_off = restore.tcp != Connections::Established;
        let fill = if restore.lazy { Fill::WhatIsNeededAtOnce } else { Fill::Everything };
        let inventory = needed(&image, fill, is_cut_off)?;
        admitted(admission.judge_inventory(&inventory)?)?;
        // Whoever looks for a file of the tree finds it; what is refused takes them back.
        let (put_in, mut refusals) = files::put_in(&image, restore)?;
        refusals.extend(judge(&image, &ours, &inventory)?);
        admitted(refusals)?;
        let mut playback = image.play_back(fill)?;
        let tells = restore.tcp == Connections::Reset;
        let dismissed = playback.image.descriptors.clone().filter(|_| tells);
        if let (true, Some(table)) = (is_cut_off, &mut playback.image.descriptors) {
            descriptors::cut_off(table)?;
        }
        admitted(admission.judge_image(&playback.layout, &playback.image)?)?;
        Ok(Self { playback, dismissed, put_in, began })
    }

    /// Where it fails, nothing of the tree is left.
    pub(super) fn run(
        self,
        restore: &Restore,
        admission: &dyn Admission,
    ) -> Result<Running, Ending> {
        let Self { playback, dismissed, put_in, began } = self;
        let holder = (!playback.image.missing.is_empty()).then(|| HolderToBe::new(restore));
        let seen = playback.image.clocks.unwrap_or_default();
        let offsets = seen.minus(Clocks::of_this_host()?);
        let stage = playback.stage(offsets)?;
        let mut restored = restore::build(stage, &playback.image)?;
        let pid = playback.layout.processes.first().map_or(0, |root| root.pid);
        let highest_id = playback.layout.ids().max();
        let living = playback.image.processes.iter().filter(|process| !process.is_zombie);
        let living: Vec<i32> = living.map(|process| process.pid).collect();
        let lazy = serve_what_is_missing(&mut restored, playback, holder)?;
        if let Some(path) = &restore.pidfile {
            let object = || Object::File { path: path.display().to_string() };
            fs::write(path, format!("{pid}\n")).on("write the process id into", object)?;
        }
        let missing_pages = lazy.as_ref().map_or(0, |lazy| lazy.memory.missing_pages());
        // What it starts has higher ids than it has, as ever; those that we have are at their end.
        let own = highest_id.filter(|_| restore.is_first());
        restore.spare_ids.or(own).map_or(Ok(()), spare_ids::spare)?;
        let pids = restored.pids();
        admission.admit_built(&living)?;
        restored.run().inspect_err(|_| end_all(&pids))?;
        let took = began.elapsed();
        let mut notes = dismissed.as_ref().map_or_else(Vec::new, dismiss);
        notes.extend(files::keep(put_in));
        Ok(Running { pid, lazy, took, missing_pages, notes })
    }
}

/// Not before the program can find them reset: a restore that fails may be tried again otherwise. What
/// could not be told is no reason to end a tree that runs.
fn dismiss(connections: &DescriptorsImage) -> Vec<String> {
    let untold = |error: Error| format!("{error}: {}", error.source);
    match descriptors::dismiss(connections) {
        Ok(errors) => errors.into_iter().map(untold).collect(),
        Err(error) => vec![untold(error)],
    }
}

/// Some of it runs, and some of it never will.
fn end_all(pids: &[i32]) {
    for &pid in pids {
        // One that has ended already is what was wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// From here on a missing page waits for us, and the holder kills the tree if we die.
fn serve_what_is_missing(
    restored: &mut Restored,
    playback: Playback,
    holder: Option<HolderToBe>,
) -> Result<Option<Lazy>, Error> {
    let spaces = std::mem::take(&mut restored.lazy);
    let Some(holder) = holder else { return Ok(None) };
    let holder = Arc::new(holder.ready()?);
    restored.pids().into_iter().try_for_each(|pid| holder.watch_process(pid))?;
    let (wanted, served) = Served::new(playback.into_store());
    let memory = Arc::new(LazyMemory::start(spaces, wanted, Some(Arc::clone(&holder)))?);
    Ok(Some(Lazy { served, memory, holder }))
}

/// The holder starts while the tree is built.
struct HolderToBe(JoinHandle<Result<Holder, Error>>);

impl HolderToBe {
    fn new(restore: &Restore) -> Self {
        let state = restore.state.state.clone();
        Self(thread::spawn(move || start_holder(&state)))
    }

    fn ready(self) -> Result<Holder, Error> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn start_holder(state: &Path) -> Result<Holder, Error> {
    let object = || Object::File { path: state.display().to_string() };
    fs::create_dir_all(state).on("make", object)?;
    // Not by our process id: that is 1 in every PID namespace of its own.
    let id = new_id().on("name a socket on", || Object::Host)?;
    let socket: PathBuf = state.join(format!("restore-{id}.sock"));
    let mut command = Command::new("/proc/self/exe");
    command.arg("holder").arg("--socket").arg(&socket).stdout(Stdio::null());
    let holder = Holder::spawn(&mut command)?;
    // No successor comes, and a holder that is killed could not remove it. It listens without a name.
    fs::remove_file(&socket)
        .on("remove", || Object::File { path: socket.display().to_string() })?;
    Ok(holder)
}

impl Running {
    /// Until nothing of its memory is missing any more.
    pub(super) fn serve(self) -> Result<(), Error> {
        let Some(Lazy { served, memory, holder }) = self.lazy else { return Ok(()) };
        served.serve(&memory)?;
        memory.wait(END_WAIT)?;
        // Nobody is left to be killed when it has ended by itself.
        let _ = holder.release();
        Ok(())
    }

    pub(super) fn summary(&self) -> RestoreSummary {
        let elapsed_ms = self.took.as_secs_f64() * 1000.0;
        RestoreSummary { pid: self.pid, elapsed_ms, missing_pages: self.missing_pages }
    }
}

impl RestoreSummary {
    pub(crate) fn tell(&self, output: &Output) {
        let Self { pid, elapsed_ms, missing_pages } = self;
        let rest = match missing_pages {
            0 => String::new(),
            pages => format!(" {} MiB of its memory follow.", pages >> 8),
        };
        output.text(&format!("Process {pid} runs again after {elapsed_ms:.1} ms.{rest}"));
        output.event(&Event::Restored(self.clone()));
    }
}

fn admitted(refusals: Vec<Refusal>) -> Result<(), Ending> {
    if refusals.is_empty() { Ok(()) } else { Err(Ending::Refused(refusals)) }
}

/// What the tree needs. Of what came and went while it was dumped, the last word counts.
fn needed(image: &StoredImage, fill: Fill, is_cut_off: bool) -> Result<Inventory, Error> {
    let inventory = image.manifest().inventory.clone().unwrap_or_default();
    let memory_bytes = image.memory_pages(fill) * PAGE_BYTES;
    let layout = image.tree().layout.clone();
    let mut inventory = Inventory { layout, memory_bytes, ..inventory };
    if let (true, Some(outline)) = (is_cut_off, &mut inventory.outline) {
        descriptors::cut_off(outline)?;
    }
    Ok(inventory)
}

/// The same questions that a destination asks of a source.
fn judge(image: &StoredImage, ours: &Hello, inventory: &Inventory) -> Result<Vec<Refusal>, Ending> {
    let manifest = image.manifest();
    let theirs: Hello = decode("host", &manifest.host)?;
    let mut mismatches: Vec<Mismatch> = agree(&theirs, ours).err().unwrap_or_default();
    mismatches.extend(lacking(What::Kind, &offered(&manifest.kinds), ours));
    mismatches.extend(lacking(What::Aspect, &offered(&manifest.aspects), ours));
    let mut refusals: Vec<Refusal> = mismatches.iter().map(|one| one.refusal(ours)).collect();
    refusals.extend(original::stands_still(image, &theirs.host, &ours.host));
    let found = inventory::judge(inventory, ours.host.free_memory_bytes)?;
    refusals.extend(found.iter().map(refusal));
    Ok(refusals)
}

fn offered(known: &[Known]) -> Vec<Offered> {
    let offered = |known: &Known| Offered { name: known.name.clone(), version: known.version };
    known.iter().map(offered).collect()
}
