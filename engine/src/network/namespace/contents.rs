//! Everything that a namespace has, as it travels.

use super::cable::{self, Cable};
use super::link::{self, CableImage, Dummy, LinkImage, LinkKind, Listed, Loopback, UP};
use super::settings::{self, Setting};
use super::tables::{ADDRESSES, NEIGHBOURS, ROUTES, RULES, Table};
use super::{Namespace, enter};
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::net::IpAddr;

/// A network namespace on its way to another host.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceImage {
    #[prost(message, repeated, tag = "1")]
    pub links: Vec<LinkImage>,
    /// Messages of rtnetlink(7): the fixed part and attributes.
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    routes: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    rules: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    neighbours: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "6")]
    pub(super) settings: Vec<Setting>,
}

/// Something in a namespace that cannot be moved: its name, and why.
pub(super) type Blocker = (String, String);

/// The kernel makes these in every namespace; nobody uses one that is down.
const BY_THEMSELVES: [&str; 9] =
    ["tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"];

impl NamespaceImage {
    /// All but the settings, which take a few milliseconds.
    pub(super) fn read(namespace: &Namespace) -> Result<(Self, Vec<Blocker>), Error> {
        let cables = cable::into(namespace)?;
        let _inside = namespace.enter()?;
        let (mut image, mut blockers) = (Self::default(), Vec::new());
        for device in link::all()?.iter().filter(|device| !is_by_itself(device)) {
            match link_image(device, &cables) {
                Ok(link) => image.links.push(link),
                Err(why) => blockers.push((format!("device {}", device.name), why)),
            }
        }
        for (table, entries) in image.tables_mut() {
            let (read, refused) = table.read()?;
            *entries = read;
            blockers.extend(refused);
        }
        Ok((image, blockers))
    }

    pub(super) fn with_settings(self, namespace: &Namespace) -> Result<Self, Error> {
        let _inside = enter(Some(namespace))?;
        Ok(Self { settings: settings::read()?, ..self })
    }

    /// Devices may use each other and go first; what leads somewhere needs to be there.
    pub(super) fn tables(&self) -> [(&'static Table, &Vec<Vec<u8>>); 4] {
        [
            (&ADDRESSES, &self.addresses),
            (&ROUTES, &self.routes),
            (&RULES, &self.rules),
            (&NEIGHBOURS, &self.neighbours),
        ]
    }

    fn tables_mut(&mut self) -> [(&'static Table, &mut Vec<Vec<u8>>); 4] {
        [
            (&ADDRESSES, &mut self.addresses),
            (&ROUTES, &mut self.routes),
            (&RULES, &mut self.rules),
            (&NEIGHBOURS, &mut self.neighbours),
        ]
    }

    /// What is another since this was read, but for lifetimes and settings.
    pub(super) fn change(&self, now: &Self) -> Option<String> {
        let links = || {
            let gone = self.links.iter().find(|link| !now.links.contains(link));
            let changed = gone.or_else(|| now.links.iter().find(|link| !self.links.contains(link)));
            changed.map(|link| format!("device {}", link.name))
        };
        let entries = self.tables().into_iter().zip(now.tables());
        let mut entries = entries.filter_map(|((table, before), (_, now))| {
            let is_among = |one: &Vec<u8>, others: &[Vec<u8>]| {
                others.iter().any(|other| table.is_same(one, other))
            };
            let gone = before.iter().find(|entry| !is_among(entry, now));
            let changed = gone.or_else(|| now.iter().find(|entry| !is_among(entry, before)));
            changed.map(|entry| table.name_of(entry))
        });
        links().or_else(|| entries.next())
    }

    /// The bridges of the destination that its cables go to, each by its device.
    pub fn bridges(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.iter().filter_map(|link| match &link.kind {
            Some(LinkKind::Cable(cable)) => Some((link.name.as_str(), cable.bridge.as_str())),
            _ => None,
        })
    }

    /// By which others reach it: neither of loopback nor of one link alone.
    pub fn ips(&self) -> Vec<IpAddr> {
        let ips = self.addresses.iter().filter_map(|entry| ADDRESSES.ip_of(entry));
        let is_of_the_link =
            |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        ips.filter(|ip| !ip.is_loopback() && !is_of_the_link(ip)).collect()
    }

    /// Says which bridges its cables go to at the destination: `NAME` for all of them, `DEV=NAME`
    /// for one. Without a word it is the one of the same name as here. What is missing is refused.
    pub fn plug_into(&mut self, bridges: &[String]) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let of_all = bridges.iter().rev().find(|bridge| !bridge.contains('='));
        for link in &mut self.links {
            let Some(LinkKind::Cable(cable)) = &mut link.kind else { continue };
            let own = bridges.iter().rev().filter_map(|bridge| bridge.split_once('='));
            let own = own.into_iter().find(|(device, _)| *device == link.name);
            if let Some(bridge) = own.map(|(_, bridge)| bridge).or(of_all.map(String::as_str)) {
                bridge.clone_into(&mut cable.bridge);
            }
            if cable.bridge.is_empty() {
                refusals.push(without_bridge(&link.name, &cable.name_outside));
            }
        }
        refusals.extend(self.unknown(bridges));
        refusals
    }

    fn unknown(&self, bridges: &[String]) -> impl Iterator<Item = Refusal> {
        let has = |name: &str| self.bridges().any(|(device, _)| device == name);
        bridges.iter().filter_map(move |bridge| {
            let (device, _) = bridge.split_once('=')?;
            (!has(device)).then(|| Refusal {
                object: Object::Network { name: format!("device {device}") },
                reason: "is no cable (veth) between the tree's network namespace and this host"
                    .to_owned(),
                advice: "Name one of its devices in `--bridge DEV=NAME`.".to_owned(),
            })
        })
    }
}

fn without_bridge(device: &str, outside: &str) -> Refusal {
    let name = format!("device {device} of the tree's network namespace");
    Refusal {
        object: Object::Network { name },
        reason: format!("leads to {outside} on this host, which is a port of no bridge"),
        advice: "Say which bridge of the destination it goes to: `--bridge NAME`.".to_owned(),
    }
}

pub(super) fn is_by_itself(device: &Listed) -> bool {
    device.flags & UP == 0 && BY_THEMSELVES.contains(&device.name.as_str())
}

/// `Err`: why it cannot be made again.
fn link_image(device: &Listed, cables: &[Cable]) -> Result<LinkImage, String> {
    const XDP_ATTACHED: u16 = 2;
    if device.number(libc::IFLA_MASTER).is_some() {
        return Err("is a port of another device".to_owned());
    }
    if device.of(libc::IFLA_PROP_LIST).is_some() {
        return Err("has more than one name".to_owned());
    }
    if device.within(libc::IFLA_XDP, XDP_ATTACHED).is_some_and(|attached| attached != [0]) {
        return Err("has an XDP program".to_owned());
    }
    Ok(LinkImage { kind: Some(kind(device, cables)?), ..device.image() })
}

fn kind(device: &Listed, cables: &[Cable]) -> Result<LinkKind, String> {
    let leads_out = device.of(libc::IFLA_LINK_NETNSID).is_some();
    match device.kind().as_str() {
        "" if device.name == "lo" => Ok(LinkKind::Loopback(Loopback {})),
        "dummy" => Ok(LinkKind::Dummy(Dummy {})),
        "veth" => {
            let outside = cables.iter().find(|cable| {
                cable.leads_to == device.index
                    && device.number(libc::IFLA_LINK) == Some(cable.index)
            });
            let outside = outside.ok_or("is a cable (veth) whose other end is not on this host")?;
            cable_image(outside).map(LinkKind::Cable)
        }
        "" => Err("is no virtual device".to_owned()),
        other if leads_out => Err(format!("is of the kind {other}, upon a device of this host")),
        other => Err(format!("is of the kind {other}, which cannot be made again")),
    }
}

fn cable_image(outside: &Cable) -> Result<CableImage, String> {
    let bridge = outside.bridge.clone().unwrap_or_default();
    if outside.bridge_has_vlans {
        return Err(format!("leads to the bridge {bridge}, which filters VLANs"));
    }
    let (name_outside, mtu_bytes_outside) = (outside.name.clone(), outside.mtu_bytes);
    Ok(CableImage { name_outside, bridge, mtu_bytes_outside })
}
