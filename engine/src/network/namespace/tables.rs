//! What stands in a namespace's tables: addresses, routes, rules and neighbours.
//!
//! Entries travel as the kernel tells them, as far as it takes the same back: so an address has the
//! scope, label and metric that it had without a word of ours for each. What the kernel finds out by
//! itself is left out. An attribute that is not known here is refused on either host: on the source
//! it would be lost, and from a hostile source it could lead out of the namespace.

mod address;
mod neighbour;
mod route;
mod rule;

use super::super::netlink::{Attributes, Message, Socket, attributes, number};
use super::contents::Blocker;
use crate::error::{Error, Object, OnObject as _};
pub(super) use address::ADDRESSES;
use address::without_asking;
pub(super) use neighbour::NEIGHBOURS;
pub(super) use route::ROUTES;
pub(super) use rule::RULES;
use std::io;
use std::net::IpAddr;

/// The fixed part and the attributes.
pub(super) type Entry = Vec<u8>;

/// One kind of entry, as rtnetlink(7) has it.
pub(super) struct Table {
    /// As a person would call an entry.
    pub(super) name: &'static str,
    get: u16,
    add: u16,
    remove: u16,
    /// The fixed part of each request for a list.
    requests: &'static [[u8; FIXED_BYTES_MAX]],
    /// How long the fixed part of an entry is.
    fixed_bytes: usize,
    /// Attributes that travel.
    kept: &'static [u16],
    /// What the kernel says of an entry, and cannot be told.
    told: &'static [u16],
    /// Whether an entry is somebody's, and not the kernel's own; and what is wrong with it.
    concerns: fn(&[u8]) -> bool,
    blocker: fn(&[u8]) -> Option<&'static str>,
    /// Takes out what changes by itself.
    settle: fn(&mut Vec<u8>),
}

const FIXED_BYTES_MAX: usize = 12;
const V4: u8 = 2;
const V6: u8 = 10;
const OF_V4: [u8; FIXED_BYTES_MAX] = [V4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const OF_V6: [u8; FIXED_BYTES_MAX] = [V6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// RTA_NH_ID of linux/rtnetlink.h.
const NEXTHOP: u16 = 30;

/// Far above what a namespace ever had, and below what could hurt the host.
pub(super) const ENTRIES_MAX: usize = 4096;
/// A route needs one to its gateway, and hardly ever a third.
const TURNS_MAX: u32 = 8;

impl Table {
    /// Everything that stands in it, and why some of that cannot be moved.
    pub(super) fn read(&self) -> Result<(Vec<Entry>, Vec<Blocker>), Error> {
        let (mut entries, mut blockers) = (Vec::new(), Vec::new());
        for body in self.list().on("list", || self.object("every"))? {
            match self.entry(&body) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => {}
                Err(why) => blockers.push((self.name_of(&body), why)),
            }
        }
        Ok((entries, blockers))
    }

    fn list(&self) -> io::Result<Vec<Vec<u8>>> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        let mut all = Vec::new();
        for request in self.requests {
            let fixed = &request[..self.fixed_bytes];
            let message = Message::new(self.get, 0, fixed, &Attributes::new());
            all.extend(socket.list(&message).map_err(io::Error::from)?);
        }
        Ok(all)
    }

    /// As it travels; `None` for one that the kernel makes by itself.
    fn entry(&self, body: &[u8]) -> Result<Option<Vec<u8>>, String> {
        if !(self.concerns)(body) {
            return Ok(None);
        }
        if let Some(why) = (self.blocker)(body) {
            return Err(why.to_owned());
        }
        self.refuse_unknown(body)?;
        let mut entry = body.get(..self.fixed_bytes).ok_or("is cut off")?.to_vec();
        let mut all: Vec<_> = attributes(&body[self.fixed_bytes..]).collect();
        // One kernel tells them in another order than the other.
        all.sort_unstable_by_key(|(kind, _)| *kind);
        let kept = all.into_iter().filter(|(kind, _)| self.kept.contains(kind));
        let kept = kept.fold(Attributes::new(), |all, (kind, value)| all.bytes(kind, value));
        entry.extend(kept.as_bytes());
        (self.settle)(&mut entry);
        Ok(Some(entry))
    }

    fn refuse_unknown(&self, body: &[u8]) -> Result<(), String> {
        let rest = body.get(self.fixed_bytes..).ok_or("is cut off")?;
        let known = |kind: &u16| self.kept.contains(kind) || self.told.contains(kind);
        match attributes(rest).map(|(kind, _)| kind).find(|kind| !known(kind)) {
            Some(NEXTHOP) => Err("leads through a nexthop object".to_owned()),
            Some(kind) => Err(format!("has an attribute that is not known here ({kind})")),
            None => Ok(()),
        }
    }

    /// Makes the table be what it was elsewhere: what is too much goes, what is missing comes. One
    /// may need another, so as long as anything succeeds it is tried again.
    pub(super) fn make(&self, wanted: &[Vec<u8>]) -> Result<(), Error> {
        self.check(wanted)?;
        let socket =
            Socket::open(libc::NETLINK_ROUTE).on("open", || self.object("a socket for"))?;
        let (here, _) = self.read()?;
        for entry in here.iter().filter(|entry| !self.is_among(entry, wanted)) {
            // One that went with another is gone already, and what stays is found at the end.
            let _ = socket.request(&self.message(self.remove, 0, entry));
        }
        let mut missing: Vec<_> =
            wanted.iter().filter(|entry| !self.is_among(entry, &here)).collect();
        let mut turns = 0..TURNS_MAX;
        while !missing.is_empty() {
            let (before, mut failed) = (missing.len(), None);
            missing.retain(|entry| match socket.request(&self.addition(entry)) {
                Ok(()) => false,
                Err(failure) => {
                    failed.get_or_insert(((*entry).clone(), failure));
                    true
                }
            });
            let is_stuck = missing.len() == before || turns.next().is_none();
            if let Some((entry, failure)) = failed.filter(|_| is_stuck) {
                return Err(failure).on("add", || self.object(&self.name_of(&entry)));
            }
        }
        self.confirm(wanted)
    }

    /// What the kernel did not take as it was given would be found out by nobody else.
    fn confirm(&self, wanted: &[Vec<u8>]) -> Result<(), Error> {
        let (here, _) = self.read()?;
        let differs = |entry: &String, why| Error::invalid("make", self.object(entry), why);
        if let Some(entry) = wanted.iter().find(|entry| !self.is_among(entry, &here)) {
            return Err(differs(&self.name_of(entry), "it comes out differently here"));
        }
        match here.iter().find(|entry| !self.is_among(entry, wanted)) {
            Some(entry) => Err(differs(&self.name_of(entry), "it is here by itself, and stays")),
            None => Ok(()),
        }
    }

    fn check(&self, wanted: &[Vec<u8>]) -> Result<(), Error> {
        let wrong = |why: String| {
            let part = format!("list of every {} in a network namespace", self.name);
            Error::invalid("read the", Object::Image { part }, why)
        };
        if wanted.len() > ENTRIES_MAX {
            return Err(wrong(format!("it has more than {ENTRIES_MAX}")));
        }
        wanted.iter().try_for_each(|entry| self.refuse_unknown(entry).map_err(wrong))
    }

    fn is_among(&self, entry: &[u8], others: &[Vec<u8>]) -> bool {
        others.iter().any(|other| self.is_same(entry, other))
    }

    /// But for lifetimes, which run.
    pub(super) fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        if self.get != libc::RTM_GETADDR {
            return one == other;
        }
        let lasting = |entry: &[u8]| {
            let all = attributes(entry.get(8..).unwrap_or_default());
            let all = all.filter(|(kind, _)| *kind != libc::IFA_CACHEINFO);
            all.map(|(kind, value)| (kind, value.to_vec())).collect::<Vec<_>>()
        };
        one.get(..8) == other.get(..8) && lasting(one) == lasting(other)
    }

    fn addition(&self, entry: &[u8]) -> Message {
        let at_once = self.get == libc::RTM_GETADDR && entry.first() == Some(&V6);
        let entry = if at_once { without_asking(entry) } else { entry.to_vec() };
        self.message(self.add, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &entry)
    }

    fn message(&self, kind: u16, flags: i32, entry: &[u8]) -> Message {
        let (fixed, rest) = entry.split_at(self.fixed_bytes.min(entry.len()));
        let all = attributes(rest);
        let all = all.fold(Attributes::new(), |all, (kind, value)| all.bytes(kind, value));
        Message::new(kind, flags, fixed, &all)
    }

    fn object(&self, which: &str) -> Object {
        let name = match which.starts_with(self.name) {
            true => which.to_owned(),
            false => format!("{which} {}", self.name),
        };
        Object::Network { name: format!("{name} of a network namespace") }
    }

    /// IFA_LOCAL; where there is none (IPv6 without a peer), IFA_ADDRESS.
    pub(super) fn ip_of(&self, entry: &[u8]) -> Option<IpAddr> {
        let of = |wanted| find(entry, self.fixed_bytes, wanted);
        let ip = of(libc::IFA_LOCAL).or_else(|| of(libc::IFA_ADDRESS))?;
        super::super::address::from_bytes(ip)
    }

    /// `route 192.0.2.0/24`, `address 2001:db8::7/64`, `rule 32766`.
    pub(super) fn name_of(&self, entry: &[u8]) -> String {
        let of = |wanted| {
            let mut all = attributes(entry.get(self.fixed_bytes..).unwrap_or_default());
            all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
        };
        let ip = |wanted| of(wanted).and_then(super::super::address::from_bytes);
        let prefix = entry.get(1).copied().unwrap_or_default();
        let of_network = |ip: IpAddr| format!("{} {ip}/{prefix}", self.name);
        match self.get {
            libc::RTM_GETADDR => self.ip_of(entry).map_or_else(|| self.name.to_owned(), of_network),
            libc::RTM_GETROUTE => {
                ip(libc::RTA_DST).map_or_else(|| "route default".to_owned(), of_network)
            }
            libc::RTM_GETRULE => {
                let priority = of(FRA_PRIORITY).and_then(|value| number(value, 0));
                format!("rule {}", priority.unwrap_or_default())
            }
            _ => ip(libc::NDA_DST)
                .map_or_else(|| self.name.to_owned(), |ip| format!("{} {ip}", self.name)),
        }
    }
}

const FRA_PRIORITY: u16 = 6;

fn find(entry: &[u8], fixed_bytes: usize, wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(entry.get(fixed_bytes..)?);
    all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Puts the same entry together with some of its attributes changed.
fn replace(entry: &mut Vec<u8>, fixed_bytes: usize, with: impl Fn(u16, &[u8]) -> Option<Vec<u8>>) {
    let changed = attributes(&entry[fixed_bytes..])
        .filter_map(|(kind, value)| Some((kind, with(kind, value)?)))
        .fold(Attributes::new(), |all, (kind, value)| all.bytes(kind, &value));
    entry.truncate(fixed_bytes);
    entry.extend(changed.as_bytes());
}
