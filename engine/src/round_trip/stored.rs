//! The way through a directory.

use super::{ends, maps};
use crate::asleep::Asleep;
use crate::clocks::Clocks;
use crate::freeze;
use crate::image::keys::pair;
use crate::image::{
    Fill, Identities, Manifest, Manner, Recipients, Served, StoredImage, Tree, Writer,
};
use crate::kinds::Rules;
use crate::memory::lazy::LazyMemory;
use crate::restore;
use crate::source::{Along, Before, Later, Source};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

/// Stores the program and kills it.
fn dump(child: &mut Child, path: &Path, recipients: Recipients) {
    let root = child.id().cast_signed();
    let mut source = Source::open(root, Rules::default(), Along::default()).unwrap();
    let mut writer =
        Writer::create(path, &Manner { compress: true, recipients, ..Manner::default() }).unwrap();
    writer.shape(&source.layout(Before::TheFreeze).unwrap()).unwrap();
    source.round(&mut writer).unwrap();
    let frozen = freeze::freeze(root).unwrap();
    let layout = source.frozen_layout(&frozen).unwrap();
    writer.shape(&layout).unwrap();
    let mut captured = source.capture(&frozen).unwrap();
    source.rest(&frozen, &mut captured, Later::Nothing, &mut writer).unwrap();
    source.objects(&frozen, &mut captured).unwrap();
    let tree = Tree { layout: Some(layout), image: Some(captured.image), copied: None };
    writer.finish(&tree, Manifest::default()).unwrap();
    frozen.hold().unwrap().end();
    let _ = child.wait();
    while Path::new(&format!("/proc/{root}")).exists() {}
}

fn goes_on_from_a_directory(fill: Fill, (recipients, identities): (Recipients, Identities)) {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("image");
    let mut child = Asleep::run(Command::new("setsid").args(["perl", "-e", "sleep 1"]));
    let before = maps(child.id());
    dump(child.child(), &path, recipients);
    let playback = StoredImage::open(&path, &identities).unwrap().play_back(fill).unwrap();
    let clocks = playback.image.clocks.unwrap().minus(Clocks::of_this_host().unwrap());
    let stage = playback.stage(clocks).unwrap();
    let mut restored = restore::build(stage, &playback.image).unwrap();
    let spaces = std::mem::take(&mut restored.lazy);
    assert_eq!(spaces.is_empty(), fill == Fill::Everything);
    let (wanted, served) = Served::new(playback.into_store());
    let memory = Arc::new(LazyMemory::start(spaces, wanted, None).unwrap());
    restored.run().unwrap();
    served.serve(&memory).unwrap();
    assert!(memory.wait(Duration::from_secs(10)).unwrap());
    assert_eq!(maps(child.id()), before);
    ends(&child);
}

#[test]
fn a_program_goes_on_from_a_directory() {
    goes_on_from_a_directory(Fill::Everything, Default::default());
}

#[test]
fn a_program_goes_on_before_its_memory_was_read() {
    goes_on_from_a_directory(Fill::WhatIsNeededAtOnce, Default::default());
}

#[test]
fn a_program_goes_on_before_its_encrypted_memory_was_read() {
    goes_on_from_a_directory(Fill::WhatIsNeededAtOnce, pair());
}
