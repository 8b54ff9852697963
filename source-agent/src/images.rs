//! `migrate image`: what there is to say of an image without restoring it.

use crate::cli::{ImageStep, OneImage};
use crate::codec::Compress;
use crate::complaint::Complaint;
use crate::output::print;
use anyhow::Result;
use engine::image::{Manifest, Manner, StoredImage, Tree, Writer, decode};
use engine::memory::PAGE_BYTES;
use protocol::version::Hello;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) fn run(step: ImageStep) -> Result<ExitCode> {
    let done = match step {
        ImageStep::Info(one) => info(&one),
        ImageStep::Show(_) => Ok(()),
        ImageStep::Verify(one) => verify(&one),
        ImageStep::Merge { directory, into, compress } => merge(&directory, &into, compress),
    };
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Complaint::failed(format!("{error}: {}", error.source)).say(),
    })
}

/// What `migrate image info --json` prints: `docs/json.md`.
#[derive(Debug, Serialize)]
struct Info {
    directory: String,
    format: u32,
    dumped_at_ms: u64,
    hostname: String,
    kernel: String,
    architecture: String,
    root: i32,
    processes: usize,
    threads: u32,
    memory_bytes: u64,
    stored_bytes: u64,
    parent: Option<String>,
}

impl Info {
    fn of(image: &StoredImage) -> Result<Self, engine::Error> {
        let manifest = image.manifest();
        let host = decode::<Hello>("host", &manifest.host)?.host;
        let layout = image.tree().layout.clone().unwrap_or_default();
        let size = image.store().size();
        let parent = manifest.parent.as_ref();
        Ok(Self {
            directory: image.path().display().to_string(),
            format: engine::image::VERSION,
            dumped_at_ms: manifest.dumped_at_ms,
            hostname: host.hostname,
            kernel: host.kernel_release,
            architecture: host.architecture,
            root: layout.processes.first().map_or(0, |root| root.pid),
            processes: layout.processes.len(),
            threads: manifest.inventory.as_ref().map_or(0, |inventory| inventory.thread_count),
            memory_bytes: size.pages * PAGE_BYTES,
            stored_bytes: size.stored_bytes,
            parent: parent.map(|parent| String::from_utf8_lossy(&parent.path).into_owned()),
        })
    }

    fn lines(&self) -> Vec<String> {
        let age = UNIX_EPOCH + Duration::from_millis(self.dumped_at_ms);
        let age = age.elapsed().map_or(0, |age| age.as_secs());
        let mut lines = vec![
            format!("Image {} (format {})", self.directory, self.format),
            format!("  dumped {age} s ago on {}, {}", self.hostname, self.kernel),
            format!("  process {} and {} more", self.root, self.processes.saturating_sub(1)),
            format!(
                "  {} MiB of memory, {} MiB in this directory",
                self.memory_bytes >> 20,
                self.stored_bytes >> 20
            ),
        ];
        lines.extend(self.parent.iter().map(|parent| format!("  needs {parent}")));
        lines
    }
}

fn info(one: &OneImage) -> Result<(), engine::Error> {
    let info = Info::of(&StoredImage::open(&one.directory)?)?;
    if one.json {
        print(&serde_json::to_string(&info).unwrap_or_default());
    } else {
        info.lines().iter().for_each(|line| print(line));
    }
    Ok(())
}

fn verify(one: &OneImage) -> Result<(), engine::Error> {
    let image = StoredImage::open(&one.directory)?;
    image.verify()?;
    let directory = image.path().display();
    match one.json {
        true => print(&serde_json::json!({ "directory": directory.to_string() }).to_string()),
        false => print(&format!("{directory} is as it was written.")),
    }
    Ok(())
}

fn merge(directory: &Path, into: &Path, compress: Compress) -> Result<(), engine::Error> {
    let image = StoredImage::open(directory)?;
    let manner = Manner { compress: compress != Compress::None, parent: None };
    let mut writer = Writer::create(into, &manner)?;
    let store = image.store();
    store.spaces().try_for_each(|space| store.read_all(space, &mut writer))?;
    let manifest = Manifest { parent: None, ..image.manifest().clone() };
    let tree: &Tree = image.tree();
    let pages = writer.finish(tree, manifest)?;
    let megabytes = (pages * PAGE_BYTES) >> 20;
    print(&format!("Merged into {}: {megabytes} MiB of memory.", into.display()));
    Ok(())
}
