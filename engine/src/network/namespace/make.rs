//! A namespace made again at the destination.

use super::super::addresses;
use super::super::announce;
use super::contents::{NamespaceImage, is_by_itself};
use super::link::{self, LinkImage, LinkKind};
use super::{Inside, Namespace, cable, settings};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// One that is complete but for its cables, which are down. It ends when this is dropped, unless a
/// process lives in it by then; its devices end with it.
#[derive(Debug)]
pub struct Made(Namespace);

const LINKS_MAX: usize = 64;

impl Made {
    /// # Errors
    /// What this host cannot make, by its name.
    pub(crate) fn make(image: &NamespaceImage) -> Result<Self, Error> {
        let made = build(image, &Namespace::here()?)?;
        let cables = cable::into(&made)?;
        for link in &image.links {
            let Some(LinkKind::Cable(wanted)) = &link.kind else { continue };
            let missing =
                || Error::invalid("find the other end of", link.object(), "it is not here");
            let cable = cables.iter().find(|cable| cable.leads_to == link.index);
            cable.ok_or_else(missing)?.plug_into(&wanted.bridge)?;
        }
        Ok(Self(made))
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.0
    }
}

/// One that was made by way of trial. Nothing of it touches the host: its cables end in a namespace
/// of their own, and all of it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct LikeIt {
    namespace: Namespace,
    /// With it the cables would end, and with them their addresses.
    _outside: Namespace,
}

impl LikeIt {
    fn make(image: &NamespaceImage) -> Result<Self, Error> {
        let outside = Namespace::make()?;
        Ok(Self { namespace: build(image, &outside)?, _outside: outside })
    }

    pub(crate) fn enter(&self) -> Result<Inside, Error> {
        self.namespace.enter()
    }
}

/// What this host lacks for it; and where nothing is lacking, one like it, for whatever else is to be
/// tried there.
pub(crate) fn judge(image: &NamespaceImage) -> Result<(Option<LikeIt>, Vec<Refusal>), Error> {
    let mut refusals = Vec::new();
    for (device, bridge) in image.bridges() {
        if cable::bridge_named(bridge)?.is_none() {
            refusals.push(no_bridge(device, bridge));
        }
    }
    match LikeIt::make(image) {
        Ok(like_it) => Ok((Some(like_it), refusals)),
        Err(error) => {
            refusals.push(Refusal {
                reason: format!("cannot be made here: {}", error.source),
                object: error.object,
                advice: "Give the destination what it lacks, or take it out of the namespace."
                    .to_owned(),
            });
            Ok((None, refusals))
        }
    }
}

fn no_bridge(device: &str, bridge: &str) -> Refusal {
    Refusal {
        object: Object::Network { name: format!("bridge {bridge}") },
        reason: format!("is not here, and {device} of the tree's network namespace goes to it"),
        advice: "Make it there, or name another one: `--bridge NAME`.".to_owned(),
    }
}

/// The far ends of its cables are in `outside`.
fn build(image: &NamespaceImage, outside: &Namespace) -> Result<Namespace, Error> {
    check(image)?;
    let made = Namespace::make()?;
    let inside = made.enter()?;
    let links = &image.links;
    links.iter().try_for_each(|link| link.make(outside.as_fd()))?;
    // Some say how a device behaves that comes up.
    settings::make(&image.settings)?;
    links.iter().try_for_each(LinkImage::raise)?;
    for (table, entries) in image.tables() {
        table.make(entries)?;
    }
    confirm(links)?;
    drop(inside);
    Ok(made)
}

/// It may come from a hostile host.
fn check(image: &NamespaceImage) -> Result<(), Error> {
    let part = || Object::Image { part: super::NAME.to_owned() };
    if image.links.len() > LINKS_MAX || image.settings.len() > settings::SETTINGS_MAX {
        return Err(Error::invalid("read the", part(), "it has too many devices or settings"));
    }
    image.links.iter().try_for_each(LinkImage::check)
}

/// What the kernel did not take as it was given would be found out by nobody else.
fn confirm(links: &[LinkImage]) -> Result<(), Error> {
    for device in link::all()?.iter().filter(|device| !is_by_itself(device)) {
        let here = device.image();
        let differs = |why| Err(Error::invalid("make", here.object(), why));
        match links.iter().find(|link| link.index == here.index) {
            Some(link) if (LinkImage { kind: None, ..link.clone() }) == here => {}
            Some(link) => {
                tracing::debug!(wanted = ?link, here = ?here, "a device that differs");
                return differs("it comes out differently here");
            }
            None => return differs("it is here by itself"),
        }
    }
    Ok(())
}

/// Lets frames in and out, and tells everybody on the link. What went wrong; all is tried.
pub(crate) fn join(namespace: &Namespace) -> Vec<Error> {
    let mut errors = Vec::new();
    match cable::into(namespace) {
        Ok(cables) => errors.extend(cables.iter().filter_map(|cable| cable.let_through().err())),
        Err(error) => errors.push(error),
    }
    errors.extend(announce_all(namespace, Some(OPENS_MAX)));
    errors
}

/// The same for the namespace of a process, by an agent that comes after the one which has made it.
/// Nothing is done to a process of our own namespace.
///
/// # Errors
/// What went wrong; all is tried.
#[must_use]
pub fn join_of(pid: i32) -> Vec<Error> {
    match Namespace::of_process(pid) {
        Ok(Some(namespace)) => join(&namespace),
        Ok(None) => Vec::new(),
        Err(error) => vec![error],
    }
}

/// The kernel opens a device aside, some 100 us after its cable.
const OPENS_MAX: Duration = Duration::from_millis(100);

impl Namespace {
    /// Tells the neighbours of each of its addresses once more.
    #[must_use]
    pub fn announce(&self) -> Vec<Error> {
        announce_all(self, None)
    }
}

fn announce_all(namespace: &Namespace, wait: Option<Duration>) -> Vec<Error> {
    let all = || {
        let _inside = namespace.enter()?;
        if let Some(limit) = wait {
            wait_until_open(limit)?;
        }
        addresses::of_host()
    };
    let all = match all() {
        Ok(all) => all,
        Err(error) => return vec![error],
    };
    let _inside = match namespace.enter() {
        Ok(inside) => inside,
        Err(error) => return vec![error],
    };
    // Of loopback nobody need be told.
    let told = all.iter().filter_map(|assigned| assigned.address().ok());
    told.filter_map(|address| announce(&address).err()).collect()
}

fn wait_until_open(limit: Duration) -> Result<(), Error> {
    let end = Instant::now() + limit;
    while link::all()?.iter().any(link::Listed::is_opening) && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
