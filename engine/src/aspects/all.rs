//! All aspects of a process or of a thread at once: what the main path calls.

use super::entry::Reader;
use super::name::Name;
use super::robust_list::RobustList;
use super::{ALL, Aspect as _, AspectEntry, Scope, Subject, refused};
use crate::batch::{Answers, Batch};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::fmt;

/// One aspect as it is recorded.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AspectImage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub bytes: Vec<u8>,
}

/// What a thread with these aspects is called. Any bytes: a name need not be text.
pub fn name_of(aspects: &[AspectImage]) -> Option<Vec<u8>> {
    let aspect = aspects.iter().find(|aspect| aspect.name == Name::NAME)?;
    Name::called(&aspect.bytes)
}

/// Queries that are in a batch and wait for its answers.
#[must_use = "the answers to these queries are what is captured"]
pub struct Asked(Vec<(&'static AspectEntry, Reader)>);

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(entry, _)| entry.name)).finish()
    }
}

/// What cannot be carried, each blocker once. Seen from outside, before anything is stopped;
/// what is of a process is asked of the first of its threads.
pub fn examine_all(subjects: &[Subject<'_>]) -> Vec<Refusal> {
    let mut found = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        let first = subjects[..index].iter().all(|earlier| earlier.pid != subject.pid);
        for refusal in examine(subject, first) {
            if !found.contains(&refusal) {
                found.push(refusal);
            }
        }
    }
    found
}

fn examine<'a>(subject: &'a Subject<'a>, process_too: bool) -> impl Iterator<Item = Refusal> + 'a {
    let due = move |scope| scope == Scope::Thread || process_too;
    let carried = ALL.iter().filter(move |entry| due(entry.scope));
    let refused = refused::ALL.iter().filter(move |(scope, _)| due(*scope));
    carried
        .map(|entry| entry.examine)
        .chain(refused.map(|(_, examine)| *examine))
        .flat_map(move |examine| examine(subject))
}

/// Writes the queries of every aspect of this scope into the batch. The thread must be stopped:
/// some aspects are read from procfs here.
pub fn ask_all(scope: Scope, subject: &Subject<'_>, batch: &mut Batch) -> Asked {
    Asked(of(scope).map(|entry| (entry, (entry.ask)(subject, batch))).collect())
}

/// Turns the answers to [`ask_all`] into images. Fails where the kernel did, naming the aspect.
pub fn read_all(
    asked: Asked,
    subject: &Subject<'_>,
    answers: &Answers,
) -> Result<Vec<AspectImage>, Error> {
    let read = |(entry, reader): (&AspectEntry, Reader)| {
        let bytes = reader(subject, answers)?;
        Ok(AspectImage { name: entry.name.to_owned(), version: entry.version, bytes })
    };
    asked.0.into_iter().map(read).collect()
}

/// Writes the calls that give a new thread its aspects of this scope, in the order of [`ALL`].
///
/// A process's are given by one thread, with every capability, when all mappings, descriptors and
/// threads are there; then every thread gets its own. Fails on an image that this version does not
/// know or that contradicts itself; images of the other scope are left alone.
pub fn restore_all(
    images: &[AspectImage],
    scope: Scope,
    subject: &Subject<'_>,
    batch: &mut Batch,
) -> Result<(), Error> {
    for (entry, image) in in_order(images, scope)? {
        (entry.restore)(&image.bytes, subject, batch)?;
    }
    Ok(())
}

/// Sets from our own process what the new thread cannot set itself, after its batch has run.
pub fn restore_outside_all(
    images: &[AspectImage],
    scope: Scope,
    subject: &Subject<'_>,
) -> Result<(), Error> {
    for (entry, image) in in_order(images, scope)? {
        (entry.restore_outside)(&image.bytes, subject)?;
    }
    Ok(())
}

/// Memory (address, bytes) that the kernel accesses by itself for a thread with these aspects.
pub fn touched_by_kernel(images: &[AspectImage]) -> Vec<(u64, u64)> {
    let entry = |image: &AspectImage| ALL.iter().find(|entry| entry.name == image.name);
    images
        .iter()
        .filter_map(|image| Some((entry(image)?.touched)(&image.bytes)))
        .flatten()
        .collect()
}

/// Where a thread's list of held robust locks begins, if it has one.
pub fn robust_list_head(images: &[AspectImage]) -> Option<u64> {
    let image = images.iter().find(|image| image.name == RobustList::NAME)?;
    let touched = touched_by_kernel(std::slice::from_ref(image));
    touched.first().map(|&(head, _)| head)
}

fn of(scope: Scope) -> impl Iterator<Item = &'static AspectEntry> {
    ALL.iter().filter(move |entry| entry.scope == scope)
}

fn in_order(
    images: &[AspectImage],
    scope: Scope,
) -> Result<Vec<(&'static AspectEntry, &AspectImage)>, Error> {
    images.iter().try_for_each(known)?;
    of(scope).filter_map(|entry| only(entry, images).transpose()).collect()
}

fn known(image: &AspectImage) -> Result<(), Error> {
    let entry = ALL.iter().find(|entry| entry.name == image.name);
    match entry {
        None => Err(unusable(&image.name, "this version does not know this aspect")),
        Some(entry) if image.version != entry.version => {
            let why = format!("it has version {}, known is {}", image.version, entry.version);
            Err(unusable(&image.name, why))
        }
        Some(_) => Ok(()),
    }
}

/// The image of an aspect. Two of them are an error: which one is true?
fn only<'a>(
    entry: &'static AspectEntry,
    images: &'a [AspectImage],
) -> Result<Option<(&'static AspectEntry, &'a AspectImage)>, Error> {
    let mut matching = images.iter().filter(|image| image.name == entry.name);
    let first = matching.next();
    match matching.next() {
        Some(_) => Err(unusable(entry.name, "it is there twice")),
        None => Ok(first.map(|image| (entry, image))),
    }
}

fn unusable(name: &str, why: impl Into<String>) -> Error {
    // A hostile name may be megabytes long, and this one is printed.
    let part =
        format!("the aspect \"{}\"", name.chars().take(64).collect::<String>().escape_debug());
    Error::invalid("use", Object::Image { part }, why)
}

#[cfg(test)]
mod tests;
