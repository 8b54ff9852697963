//! A packet of IP in our own words: RFC 791, RFC 8200, the checksum of RFC 1071.

use super::address::bytes;
use crate::sys;
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

/// What its header says, whichever version of IP its two ends are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// IPPROTO_*.
    pub(crate) protocol: u8,
    /// The TTL, or the hop limit.
    pub(crate) hops: u8,
    /// The TOS, or the traffic class.
    pub(crate) class: u8,
}

/// What most systems begin with.
pub(crate) const HOPS: u8 = 64;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP_V6: u8 = 58;

impl Header {
    /// Of a content in which the place of its checksum is zero. With the checksum in its place it is 0.
    pub(crate) fn checksum(&self, content: &[u8]) -> u16 {
        let length = u32::try_from(content.len()).unwrap_or_default().to_be_bytes();
        let parts = [&self.ends()[..], &length, &[0, self.protocol], content];
        let mut sum: u64 = parts.into_iter().map(sum).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or_default()
    }

    /// The packet with its content, never to be a fragment; `None` when it is too long, or when its ends
    /// are of different versions. The kernel fills in what IPv4 has beside: raw(7).
    pub(crate) fn packet(&self, content: &[u8]) -> Option<Vec<u8>> {
        const LEAVE_WHOLE: u8 = 0x40;
        let Self { protocol, hops, class, .. } = *self;
        let length = |bytes: usize| u16::try_from(bytes).ok().map(u16::to_be_bytes);
        let first = match (self.from, self.to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let [high, low] = length(20 + content.len())?;
                vec![0x45, class, high, low, 0, 0, LEAVE_WHOLE, 0, hops, protocol, 0, 0]
            }
            (IpAddr::V6(_), IpAddr::V6(_)) => {
                let [high, low] = length(content.len())?;
                vec![0x60 | class >> 4, class << 4, 0, 0, high, low, protocol, hops]
            }
            _ => return None,
        };
        Some([&first, &self.ends()[..], content].concat())
    }

    fn ends(&self) -> Vec<u8> {
        [bytes(self.from), bytes(self.to)].concat()
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |two: &[u8]| u16::from_be_bytes([two[0], two.get(1).copied().unwrap_or(0)]);
    bytes.chunks(2).map(|two| u64::from(word(two))).sum()
}

/// Sends whole packets, from whomever they say they are. Their way is found by the address that is told
/// beside: raw(7).
#[derive(Debug)]
pub(crate) struct Sender(OwnedFd);

impl Sender {
    /// For packets of that address's version.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub(crate) fn open(to: IpAddr) -> io::Result<Self> {
        let domain = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        sys::sock::socket(domain, libc::SOCK_RAW, libc::IPPROTO_RAW).map(Self)
    }

    /// By this device only.
    pub(crate) fn on(self, device: &str) -> io::Result<Self> {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        sys::sock::set_option(self.0.as_fd(), level, name, device.as_bytes())?;
        Ok(self)
    }

    /// # Errors
    /// Those of raw(7); EAGAIN when there is no room for it now.
    pub(crate) fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(from: &str, to: &str) -> Header {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Header { from, to, protocol: UDP, hops: HOPS, class: 0x2e }
    }

    #[test]
    fn the_checksum_in_its_place_makes_the_sum_zero() {
        for (from, to) in [("192.0.2.1", "198.51.100.9"), ("2001:db8::1", "ff02::1")] {
            for length in [8, 9, 1480, 65_000] {
                let mut content: Vec<u8> = (0..=255).cycle().skip(77).take(length).collect();
                content[6..8].fill(0);
                let sum = header(from, to).checksum(&content);
                content[6..8].copy_from_slice(&sum.to_be_bytes());
                assert_eq!(header(from, to).checksum(&content), 0, "{from} {length}");
            }
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        let header = Header { protocol: UDP, ..header("192.0.2.1", "192.0.2.2") };
        let ends = 0xc000 + 0x0201 + 0xc000 + 0x0202;
        let sum: u32 = ends + 4 + 17 + 0x1234 + 0x5600;
        let expected = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        assert_eq!(header.checksum(&[0x12, 0x34, 0x56, 0]), expected);
    }

    #[test]
    fn a_packet_has_its_class_its_length_and_its_ends() {
        let v4 = header("192.0.2.1", "192.0.2.2").packet(b"odd").unwrap();
        assert_eq!(v4[..4], [0x45, 0x2e, 0, 23]);
        assert_eq!(v4[12..], *b"\xc0\0\x02\x01\xc0\0\x02\x02odd");
        let v6 = header("2001:db8::1", "2001:db8::2").packet(b"odd").unwrap();
        assert_eq!(v6[..8], [0x62, 0xe0, 0, 0, 0, 3, UDP, HOPS]);
        assert_eq!((v6[23], v6[39], &v6[40..]), (1, 2, &b"odd"[..]));
    }

    #[test]
    fn what_fits_into_no_packet_makes_none() {
        assert!(header("192.0.2.1", "192.0.2.2").packet(&[0; 65_516]).is_none());
        assert!(header("2001:db8::1", "2001:db8::2").packet(&[0; 65_536]).is_none());
        assert!(header("192.0.2.1", "2001:db8::2").packet(b"").is_none());
    }
}
