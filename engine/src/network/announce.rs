//! Telling the neighbours that an address lives here now, in one frame.
//!
//! Without it they send to the old host until they ask again: half a minute and more. The kernel
//! does not tell them when an address is added (`arp_notify` and `ndisc_notify` are for devices
//! that come up), so we do, past its protocols, by a raw frame.
//!
//! For IPv4 the frame is an ARP *request* for our own address, which RFC 5227 calls an
//! announcement. A reply says the same, but some hosts and the inspection in some switches drop
//! replies that nobody asked for; a request everybody has to look at. Linux takes either at once
//! for a neighbour that it knows. For IPv6 it is a neighbour advertisement to all nodes with the
//! override flag (RFC 4861, 7.2.6). Switches learn the port from the frame's source.

use super::address::Address;
use super::addresses;
use super::devices::{self, Device};
use super::packet::{self, Header};
use crate::error::{Error, OnObject as _};
use crate::sys;
use nix::sys::socket::{MsgFlags, send};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

const EVERYBODY: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Tells the link of its device that an address of this host is here: one frame, to be sent again
/// a few times, because frames are lost. Where nobody asks for hardware addresses (loopback,
/// tunnels) there is nothing to tell.
///
/// # Errors
/// EADDRNOTAVAIL when it is not on this host; EOPNOTSUPP on links that are not like Ethernet;
/// ENETDOWN, and those of packet(7).
pub fn announce(address: &Address) -> Result<(), Error> {
    let object = || address.object();
    let assigned = addresses::of_host()?.into_iter().find(|one| one.ip() == Some(address.ip));
    let missing = || io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    let name = assigned.ok_or_else(missing).on("announce", object)?.device;
    let device = devices::all()?.into_iter().find(|device| device.name == name);
    let device = device.ok_or_else(missing).on("announce", object)?;
    if !device.has_neighbours() {
        return Ok(());
    }
    tell(address.ip, &device).on("announce", object)
}

/// Closing a packet socket waits until no processor looks at it any more (synchronize_net), which
/// takes 10 ms and more on a busy host. A tree that is about to run need not wait with us.
pub(super) fn close_aside(socket: OwnedFd) {
    let closing = std::thread::Builder::new().name("close".to_owned()).spawn(move || drop(socket));
    // Without a thread it has been closed at once.
    drop(closing);
}

fn tell(ip: IpAddr, device: &Device) -> io::Result<()> {
    if !device.is_ethernet() {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let mut hardware = [0; 6];
    hardware.copy_from_slice(&device.hardware);
    let frame = match ip {
        IpAddr::V4(ip) => arp(ip, hardware),
        IpAddr::V6(ip) => advertisement(ip, hardware, forwards(&device.name)),
    };
    let socket = sys::sock::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    sys::sock::bind(socket.as_fd(), &link_address(device.index))?;
    let sent = send(socket.as_raw_fd(), &frame, MsgFlags::empty());
    close_aside(socket);
    Ok(sent.map(drop)?)
}

/// `struct sockaddr_ll`: to bind it takes the family and the device.
fn link_address(index: u32) -> Vec<u8> {
    let family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    let mut address = [&family.to_ne_bytes()[..], &[0; 2], &index.to_ne_bytes()].concat();
    address.resize(20, 0);
    address
}

fn arp(ip: Ipv4Addr, hardware: [u8; 6]) -> Vec<u8> {
    const ETHERNET_IPV4_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let ip = ip.octets();
    let body = [&ETHERNET_IPV4_REQUEST[..], &hardware, &ip, &[0; 6], &ip].concat();
    let mut frame = [&EVERYBODY[..], &hardware, &[0x08, 0x06], &body].concat();
    // The least that an Ethernet frame has; some devices do not fill it up.
    frame.resize(60, 0);
    frame
}

fn advertisement(ip: Ipv6Addr, hardware: [u8; 6], is_router: bool) -> Vec<u8> {
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const ROUTER: u8 = 0x80;
    const OUR_HARDWARE: [u8; 2] = [2, 1];
    // The sender and the hop limit prove that it comes from this link.
    const HOP_LIMIT: u8 = 255;
    let flags = if is_router { OVERRIDE | ROUTER } else { OVERRIDE };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (from, to) = (ip.into(), all_nodes.into());
    let header = Header { from, to, protocol: packet::ICMP_V6, hops: HOP_LIMIT, class: 0 };
    let mut body = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0].to_vec();
    body.extend([&ip.octets()[..], &OUR_HARDWARE, &hardware].concat());
    let sum = header.checksum(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = header.packet(&body).expect("it is short");
    [&ALL_NODES[..], &hardware, &[0x86, 0xdd], &packet].concat()
}

/// Neighbours forget a router that says it is none.
fn forwards(device: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/forwarding");
    fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests;
