//! What a process looks like: its ids and its mappings, without their contents.

use super::Spaces;
use super::mappings::{self, Identities};
use super::objects::Objects;
use crate::error::{Error, Object, OnObject as _};
use crate::image::ProcessLayout;
use crate::memory::backing::{self, MappingKind};
use crate::memory::mapping::{self, Mapping};
use crate::memory::mapping_image::MappingImage;
use crate::tree::{self, Life, Process};

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) pid: i32,
    pub(super) space: u32,
    /// See [`ProcessLayout::forked_from`].
    pub(super) forked_from: u32,
    start_ticks: u64,
    mappings: Vec<Mapping>,
    kinds: Vec<MappingKind>,
    /// Of the mappings as they are; empty when they have to be made anew.
    images: Vec<MappingImage>,
}

/// How often mappings may change while their files are looked at.
const LOOKS_MAX: usize = 8;

impl Shape {
    pub(super) fn of(process: &Process, space: u32) -> Self {
        Self {
            pid: process.pid,
            space,
            forked_from: 0,
            start_ticks: process.start_ticks(),
            mappings: Vec::new(),
            kinds: Vec::new(),
            images: Vec::new(),
        }
    }

    /// Whether this is the process that we know, and not another one that got its id.
    pub(super) fn is_still(&self, process: &Process) -> bool {
        self.start_ticks == process.start_ticks()
    }

    pub(super) fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    pub(super) fn mappings_with_kinds(&self) -> impl Iterator<Item = (&Mapping, &MappingKind)> {
        self.mappings.iter().zip(&self.kinds)
    }

    /// Reads its mappings again, and describes it.
    pub(super) fn layout(
        &mut self,
        process: &Process,
        objects: &mut Objects,
        spaces: &mut Spaces,
        identities: &mut Identities,
    ) -> Result<ProcessLayout, Error> {
        self.look_until_it_holds(objects, spaces, identities)?;
        Ok(ProcessLayout {
            space: self.space,
            forked_from: self.forked_from,
            tids: tree::threads(self.pid)?,
            mappings: self.images.clone(),
            descriptors_end: descriptors_end(self.pid)?,
            ..ids(process)
        })
    }

    /// The process runs: a mapping may be gone, or one with its neighbour, before its file is opened.
    fn look_until_it_holds(
        &mut self,
        objects: &mut Objects,
        spaces: &mut Spaces,
        identities: &mut Identities,
    ) -> Result<(), Error> {
        for _ in 1..LOOKS_MAX {
            self.look(objects, spaces)?;
            match self.picture(objects, identities) {
                Err(error) if error.is_gone() && tree::is_alive(self.pid) => {}
                pictured => return pictured,
            }
        }
        self.look(objects, spaces)?;
        self.picture(objects, identities)
    }

    fn picture(&mut self, objects: &Objects, identities: &mut Identities) -> Result<(), Error> {
        if self.images.is_empty() {
            let image =
                |(mapping, kind)| mappings::image(self.pid, mapping, kind, identities, objects);
            self.images = self.mappings_with_kinds().map(image).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn look(&mut self, objects: &mut Objects, spaces: &mut Spaces) -> Result<(), Error> {
        let (mut now, unknown) = mapping::refresh(self.pid, &self.mappings)?;
        if now == self.mappings {
            return Ok(());
        }
        if unknown > 0 {
            now = mapping::read(self.pid)?;
        }
        self.kinds = backing::kinds(self.pid, &mut now)?;
        self.mappings = now;
        self.images.clear();
        for (mapping, kind) in self.mappings.iter().zip(&self.kinds) {
            if let MappingKind::Object { key, origin } = kind {
                objects.note(self.pid, mapping, *key, origin, spaces)?;
            }
        }
        Ok(())
    }
}

fn descriptors_end(pid: i32) -> Result<u32, Error> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .on("list the descriptors of", || Object::Process { pid })?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.max().map_or(0, |highest: u32| highest.saturating_add(1)))
}

/// A process without its memory; all that there is of a zombie.
pub(super) fn ids(process: &Process) -> ProcessLayout {
    ProcessLayout {
        pid: process.pid,
        ppid: process.stat.ppid,
        pgid: process.stat.pgrp,
        sid: process.stat.session,
        exit_signal: process.stat.exit_signal.unwrap_or(libc::SIGCHLD),
        is_zombie: process.life == Life::Zombie,
        ..ProcessLayout::default()
    }
}
