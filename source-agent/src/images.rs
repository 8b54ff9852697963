//! `migrate image`: what there is to say of an image without restoring it.

mod harmless;
mod show;

use crate::cli::{ImageStep, Merge, OneImage};
use crate::codec::Compress;
use crate::complaint::Complaint;
use crate::output::print;
use anyhow::Result;
use engine::Object;
use engine::image::copied::Copied;
use engine::image::{Manifest, Manner, StoredImage, Tree, Writer, decode};
use engine::memory::PAGE_BYTES;
use harmless::harmless;
use protocol::version::Hello;
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) fn run(step: ImageStep) -> Result<ExitCode> {
    let done = match step {
        ImageStep::Info(one) => info(&one),
        ImageStep::Show(one) => show::show(&one),
        ImageStep::Verify(one) => verify(&one),
        ImageStep::Merge(wanted) => merge(&wanted),
    };
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Complaint::failed(harmless(&format!("{error}: {}", error.source))).say(),
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
    files: usize,
    file_bytes: u64,
    parent: Option<String>,
    is_encrypted: bool,
}

impl Info {
    fn of(image: &StoredImage) -> Result<Self, engine::Error> {
        let manifest = image.manifest();
        let host = decode::<Hello>("host", &manifest.host)?.host;
        let layout = image.tree().layout.clone().unwrap_or_default();
        let size = image.store().size();
        let parent = manifest.parent.as_ref();
        let copied = image.tree().copied.as_ref();
        Ok(Self {
            directory: image.path().display().to_string(),
            format: image.version(),
            dumped_at_ms: manifest.dumped_at_ms,
            hostname: host.hostname,
            kernel: host.kernel_release,
            architecture: host.architecture,
            root: layout.processes.first().map_or(0, |root| root.pid),
            processes: layout.processes.len(),
            threads: manifest.inventory.as_ref().map_or(0, |inventory| inventory.thread_count),
            memory_bytes: size.pages * PAGE_BYTES,
            stored_bytes: size.stored_bytes,
            files: copied.map_or(0, |copied| copied.files.len()),
            file_bytes: copied.map_or(0, Copied::bytes),
            parent: parent.map(|parent| String::from_utf8_lossy(&parent.path).into_owned()),
            is_encrypted: image.is_sealed(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let age = UNIX_EPOCH + Duration::from_millis(self.dumped_at_ms);
        let age = age.elapsed().map_or(0, |age| age.as_secs());
        let encrypted = if self.is_encrypted { ", encrypted" } else { "" };
        let mut lines = vec![
            format!("Image {} (format {}{encrypted})", self.directory, self.format),
            format!("  dumped {age} s ago on {}, {}", self.hostname, self.kernel),
            format!("  process {} and {} more", self.root, self.processes.saturating_sub(1)),
            format!(
                "  {} MiB of memory, {} MiB in this directory",
                self.memory_bytes >> 20,
                self.stored_bytes >> 20
            ),
        ];
        let files = || format!("  {} files with {} MiB", self.files, self.file_bytes >> 20);
        lines.extend((self.files > 0).then(files));
        lines.extend(self.parent.iter().map(|parent| format!("  needs {parent}")));
        lines.iter().map(|line| harmless(line)).collect()
    }
}

fn info(one: &OneImage) -> Result<(), engine::Error> {
    let info = Info::of(&open(one)?)?;
    if one.json {
        print(&serde_json::to_string(&info).unwrap_or_default());
    } else {
        info.lines().iter().for_each(|line| print(line));
    }
    Ok(())
}

fn verify(one: &OneImage) -> Result<(), engine::Error> {
    let image = open(one)?;
    image.verify()?;
    let directory = image.path().display();
    match one.json {
        true => print(&serde_json::json!({ "directory": directory.to_string() }).to_string()),
        false => print(&harmless(&format!("{directory} is as it was written."))),
    }
    Ok(())
}

fn open(one: &OneImage) -> Result<StoredImage, engine::Error> {
    StoredImage::open(&one.directory, &one.opening.identities()?)
}

fn merge(wanted: &Merge) -> Result<(), engine::Error> {
    let identities = wanted.opening.identities()?;
    let image = StoredImage::open(&wanted.directory, &identities)?;
    let recipients = wanted.seal.recipients()?;
    if image.is_sealed() && recipients.is_empty() && !wanted.decrypt {
        let object = Object::File { path: image.path().display().to_string() };
        let why = "it is encrypted, and the new one would not be (`--encrypt-to RECIPIENT`, or \
                   `--decrypt` if that is what you want)";
        return Err(engine::Error::invalid("merge", object, why));
    }
    let compress = wanted.compress != Compress::None;
    let manner = Manner { compress, parent: None, recipients, identities };
    let mut writer = Writer::create(&wanted.into, &manner)?;
    let store = image.store();
    store.spaces().try_for_each(|space| store.read_all(space, &mut writer))?;
    let manifest = Manifest { parent: None, ..image.manifest().clone() };
    let tree: &Tree = image.tree();
    let pages = writer.finish(tree, manifest)?;
    let megabytes = (pages * PAGE_BYTES) >> 20;
    print(&format!("Merged into {}: {megabytes} MiB of memory.", wanted.into.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::image::Identities;
    use std::path::Path;

    fn golden() -> Info {
        let golden = Path::new("../tests/golden/image-v1/second");
        Info::of(&StoredImage::open(golden, &Identities::default()).unwrap()).unwrap()
    }

    #[test]
    fn the_format_is_that_of_the_image_and_not_the_newest() {
        let info = golden();
        assert_eq!(info.format, 1);
        assert!(info.lines()[0].ends_with("(format 1)"), "{:?}", info.lines());
    }

    #[test]
    fn a_name_in_an_image_does_not_speak_to_the_terminal() {
        let evil = "host\x1b[2J\nImage fine".to_owned();
        let info = Info { hostname: evil.clone(), parent: Some(evil), ..golden() };
        let lines = info.lines();
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("host\\u{1b}[2J\\nImage fine")), "{lines:?}");
    }
}
