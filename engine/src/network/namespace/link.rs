//! A network device of a namespace: how it is read, and made again.

use super::super::address::is_device_name;
use super::super::netlink::{Attributes, Failure, Message, Socket, attributes, number};
use crate::error::{Error, Object, OnObject as _};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// A device as it travels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinkImage {
    /// Programs keep it, and addresses of one link name it.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    /// IFF_*: only those that somebody sets.
    #[prost(uint32, tag = "3")]
    pub flags: u32,
    #[prost(uint32, tag = "4")]
    pub mtu_bytes: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub hardware: Vec<u8>,
    #[prost(uint32, tag = "6")]
    pub queue_packets: u32,
    #[prost(uint32, tag = "7")]
    pub group: u32,
    #[prost(string, tag = "8")]
    pub alias: String,
    #[prost(oneof = "LinkKind", tags = "9, 10, 11")]
    pub kind: Option<LinkKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum LinkKind {
    #[prost(message, tag = "9")]
    Loopback(Loopback),
    #[prost(message, tag = "10")]
    Dummy(Dummy),
    #[prost(message, tag = "11")]
    Cable(CableImage),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Loopback {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Dummy {}

/// veth(4): this end is in the namespace, the other one is the host's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CableImage {
    /// What the host calls its end; another name is as good.
    #[prost(string, tag = "1")]
    pub name_outside: String,
    /// Of which the host's end becomes a port.
    #[prost(string, tag = "2")]
    pub bridge: String,
    #[prost(uint32, tag = "3")]
    pub mtu_bytes_outside: u32,
}

/// IFF_UP, netdevice(7).
pub(super) const UP: u32 = 0x1;
/// IFF_UP, IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI, IFF_MULTICAST, IFF_DYNAMIC.
pub(super) const WISHES: u32 = UP | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000;
/// MAX_ADDR_LEN and IFALIASZ of the kernel.
const HARDWARE_BYTES_MAX: usize = 32;
const ALIAS_BYTES_MAX: usize = 255;
/// VETH_INFO_PEER of linux/veth.h.
const PEER: u16 = 1;

/// What the kernel says of one device.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) flags: u32,
    body: Vec<u8>,
}

impl Listed {
    fn read(body: Vec<u8>) -> Option<Self> {
        let (index, flags) = (number(&body, 4)?, number(&body, 8)?);
        let listed = Self { index, name: String::new(), flags, body };
        Some(Self { name: listed.text(libc::IFLA_IFNAME)?, ..listed })
    }

    pub(super) fn of(&self, wanted: u16) -> Option<&[u8]> {
        let mut all = attributes(self.body.get(16..).unwrap_or_default());
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    pub(super) fn number(&self, wanted: u16) -> Option<u32> {
        number(self.of(wanted)?, 0)
    }

    pub(super) fn text(&self, wanted: u16) -> Option<String> {
        self.of(wanted).map(text)
    }

    /// `veth`, `bridge`, …; empty for a device that nobody has made.
    pub(super) fn kind(&self) -> String {
        self.within(libc::IFLA_LINKINFO, libc::IFLA_INFO_KIND).map(text).unwrap_or_default()
    }

    /// An attribute within another.
    pub(super) fn within(&self, outer: u16, wanted: u16) -> Option<&[u8]> {
        attributes(self.of(outer)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Of its kind's own attributes.
    pub(super) fn own(&self, wanted: u16) -> Option<&[u8]> {
        let own = self.within(libc::IFLA_LINKINFO, libc::IFLA_INFO_DATA)?;
        attributes(own).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Of what it is as a port of another.
    pub(super) fn port(&self, wanted: u16) -> Option<&[u8]> {
        let port = self.within(libc::IFLA_LINKINFO, libc::IFLA_INFO_SLAVE_DATA)?;
        attributes(port).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// Whether frames go through by now: IF_OPER_UP.
    pub(super) fn is_open(&self) -> bool {
        const OPERATES: u8 = 6;
        self.of(libc::IFLA_OPERSTATE) == Some(&[OPERATES][..])
    }

    /// Up, with a cable that is up at its other end, and not usable yet.
    pub(super) fn is_opening(&self) -> bool {
        const LOWER_UP: u32 = 0x1_0000;
        self.kind() == "veth" && self.flags & LOWER_UP != 0 && !self.is_open()
    }

    /// Everything but its kind.
    pub(super) fn image(&self) -> LinkImage {
        LinkImage {
            index: self.index,
            name: self.name.clone(),
            flags: self.flags & WISHES,
            mtu_bytes: self.number(libc::IFLA_MTU).unwrap_or_default(),
            hardware: self.of(libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
            queue_packets: self.number(libc::IFLA_TXQLEN).unwrap_or_default(),
            group: self.number(libc::IFLA_GROUP).unwrap_or_default(),
            alias: self.text(libc::IFLA_IFALIAS).unwrap_or_default(),
            kind: None,
        }
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// Every device of the calling thread's namespace.
pub(super) fn all() -> Result<Vec<Listed>, Error> {
    let object = || Object::Network { name: "the network devices".to_owned() };
    let message = Message::new(libc::RTM_GETLINK, 0, &[0; 16], &Attributes::new());
    let list = Socket::open(libc::NETLINK_ROUTE)
        .and_then(|socket| socket.list(&message).map_err(io::Error::from));
    Ok(list.on("list", object)?.into_iter().filter_map(Listed::read).collect())
}

/// One of them; `None` when it is gone.
pub(super) fn one(index: u32) -> Result<Option<Listed>, Error> {
    let message = Message::new(libc::RTM_GETLINK, 0, &header(index, 0, 0), &Attributes::new());
    match Socket::open(libc::NETLINK_ROUTE).map_err(Failure::from).and_then(|s| s.ask(&message)) {
        Err(failure) if failure.errno == libc::ENODEV => Ok(None),
        asked => {
            let object = || Object::Network { name: format!("device {index}") };
            asked.map(Listed::read).on("look at", object)
        }
    }
}

impl LinkImage {
    pub(super) fn object(&self) -> Object {
        Object::Network { name: format!("device {} of a network namespace", self.name) }
    }

    /// Which names and numbers no kernel has given.
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::invalid("read", self.object(), why));
        if !is_device_name(&self.name) || self.index == 0 || self.index > i32::MAX.unsigned_abs() {
            return wrong("no device can have that name and number");
        }
        if self.hardware.len() > HARDWARE_BYTES_MAX || self.alias.len() > ALIAS_BYTES_MAX {
            return wrong("its hardware address or its alias is too long");
        }
        match &self.kind {
            Some(LinkKind::Loopback(_)) if self.name != "lo" => wrong("it has another name"),
            Some(LinkKind::Cable(cable)) if !is_device_name(&cable.bridge) => {
                wrong("no bridge can have the name of its")
            }
            None => wrong("it is of no kind that is known here"),
            _ => Ok(()),
        }
    }

    /// Makes it, still down. The other end of a cable is made in the namespace `outside`, which
    /// must not be listened to before the tree may run: it is down as well.
    pub(super) fn make(&self, outside: BorrowedFd<'_>) -> Result<(), Error> {
        let made = match &self.kind {
            Some(LinkKind::Loopback(_)) => self.change(),
            Some(LinkKind::Cable(cable)) => {
                let name = Some(cable.name_outside.as_str()).filter(|name| is_device_name(name));
                match self.add("veth", &cable_data(cable, name, outside)) {
                    // The kernel chooses another one.
                    Err(failure) if failure.errno == libc::EEXIST && name.is_some() => {
                        self.add("veth", &cable_data(cable, None, outside))
                    }
                    added => added,
                }
            }
            Some(LinkKind::Dummy(_)) => self.add("dummy", &Attributes::new()),
            None => Ok(()),
        };
        made.on("make", || self.object())
    }

    fn add(&self, kind: &str, data: &Attributes) -> Result<(), Failure> {
        let described =
            Attributes::new().text(libc::IFLA_INFO_KIND, kind).nest(libc::IFLA_INFO_DATA, data);
        let attributes = self.attributes().bytes(libc::IFLA_ADDRESS, &self.hardware);
        let attributes = attributes.nest(libc::IFLA_LINKINFO, &described);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        request(libc::RTM_NEWLINK, flags, &header(self.index, 0, 0), &attributes)
    }

    fn change(&self) -> Result<(), Failure> {
        request(libc::RTM_NEWLINK, 0, &header(self.index, 0, 0), &self.attributes())
    }

    fn attributes(&self) -> Attributes {
        Attributes::new()
            .text(libc::IFLA_IFNAME, &self.name)
            .native(libc::IFLA_MTU, self.mtu_bytes)
            .native(libc::IFLA_TXQLEN, self.queue_packets)
            .native(libc::IFLA_GROUP, self.group)
    }

    /// Sets its flags, up among them if it was, and what the kernel passes over in a new device.
    pub(super) fn raise(&self) -> Result<(), Error> {
        let header = header(self.index, self.flags & WISHES, WISHES);
        let alias = Attributes::new().bytes(libc::IFLA_IFALIAS, self.alias.as_bytes());
        let alias = if self.alias.is_empty() { Attributes::new() } else { alias };
        request(libc::RTM_NEWLINK, 0, &header, &alias).on("set up", || self.object())
    }
}

/// Whether the kernel has cables: one is made, in the network namespace of the calling thread.
pub(super) fn make_a_cable() -> io::Result<()> {
    let described = Attributes::new().text(libc::IFLA_INFO_KIND, "veth");
    let attributes = Attributes::new().nest(libc::IFLA_LINKINFO, &described);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Ok(request(libc::RTM_NEWLINK, flags, &header(0, 0, 0), &attributes)?)
}

/// The attributes of its other end stand behind a header of their own.
fn cable_data(cable: &CableImage, name: Option<&str>, outside: BorrowedFd<'_>) -> Attributes {
    let fd = outside.as_raw_fd().unsigned_abs();
    let end = Attributes::new().native(libc::IFLA_NET_NS_FD, fd);
    let end = match cable.mtu_bytes_outside {
        0 => end,
        mtu_bytes => end.native(libc::IFLA_MTU, mtu_bytes),
    };
    let end = name.iter().fold(end, |end, name| end.text(libc::IFLA_IFNAME, name));
    Attributes::new().bytes(PEER, &[&header(0, 0, 0), end.as_bytes()].concat())
}

/// `struct ifinfomsg`.
/// Lets a device of the calling thread's namespace send and receive.
pub(super) fn set_up(index: u32) -> Result<(), Failure> {
    request(libc::RTM_NEWLINK, 0, &header(index, UP, UP), &Attributes::new())
}

pub(super) fn header(index: u32, flags: u32, changed: u32) -> Vec<u8> {
    [0, index, flags, changed].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

pub(super) fn request(
    kind: u16,
    flags: i32,
    fixed: &[u8],
    attributes: &Attributes,
) -> Result<(), Failure> {
    Socket::open(libc::NETLINK_ROUTE)?.request(&Message::new(kind, flags, fixed, attributes))
}
