//! A TCP socket that waits for connections.
//!
//! One of Multipath TCP is as good: it accepts plain connections as plain ones, and programs listen so
//! without a word of theirs (Go does, since 1.24). A connection that has several paths is refused.

use super::address::{Address, bind_coming};
use super::options::{Options, Shape, blocker};
use super::tcp::half_open;
use super::{
    DescriptionImage, Findings, Ground, Kind, Open, Place, Rules, Seen, SocketSeen, Tcp, Tree, Wait,
    sole,
};
use crate::error::{Error, OnObject as _};
use crate::network::Gate;
use crate::refusal::Refusal;
use crate::sys;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(super) struct Listener;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    domain: i32,
    #[prost(bytes = "vec", tag = "2")]
    address: Vec<u8>,
    /// Connections that may wait.
    #[prost(int32, tag = "3")]
    backlog: i32,
    #[prost(message, required, tag = "4")]
    options: Options,
    /// RFC 8684.
    #[prost(bool, tag = "5")]
    is_multipath: bool,
}

impl Kind for Listener {
    const NAME: &'static str = "listening TCP socket";
    const HAS_GATE: bool = true;
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            socket.listening && (is_tcp(socket) || is_multipath(socket))
        })
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        let Ok(local) = of[0].steal() else { return };
        let shape = of[0].socket.as_ref().map(Shape::from);
        if let Some((reason, advice)) = shape.and_then(|shape| blocker(local.as_fd(), shape)) {
            findings.refuse(object, reason, advice);
        } else if tree.rules().tcp == Tcp::Established {
            // The program takes them in before it is frozen.
        } else if let Ok((waiting @ 1.., _)) = queue(local.as_fd()) {
            let text = format!("has {waiting} connections that nobody has accepted; they are reset");
            findings.note(object, text);
        }
    }

    fn capture(of: &[Open<'_>], tree: &dyn Tree) -> Result<Image, Error> {
        let object = || of[0].seen.object(Self::NAME);
        let (waiting, _) = queue(of[0].local).on("count who waits at", object)?;
        if waiting > 0 && tree.rules().tcp == Tcp::Established {
            let why = format!("{waiting} connections wait to be accepted");
            return Err(Error::invalid("read", object(), why));
        }
        read(&of[0]).on("read", object)
    }

    fn outline(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Option<Image>, Error> {
        read(&of[0]).on("read", || of[0].seen.object(Self::NAME)).map(Some)
    }

    fn check(outline: &Image, _: &[DescriptionImage], at: Ground<'_>) -> Vec<Refusal> {
        let Err(error) = bound(outline, at.coming) else { return Vec::new() };
        let address = Address(&outline.address);
        let advice = match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => {
                let ip = address.ip().map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
                format!("Let the address move as well: `--address {ip}/LEN`.")
            }
            Some(libc::ENOPROTOOPT | libc::EPROTONOSUPPORT) if outline.is_multipath => {
                "Let the kernel there have Multipath TCP: `sysctl net.mptcp.enabled=1`.".to_owned()
            }
            _ => "Stop what uses the port there.".to_owned(),
        };
        let reason = format!("cannot be bound to {address} here: {error}");
        vec![Refusal { object: at.object(Self::NAME), reason, advice }]
    }

    fn describe(image: &Image, _: &DescriptionImage) -> String {
        format!("{}, listening", Address(&image.address))
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        let object = || at.object(Self::NAME);
        let socket = bound(image, at.stage.coming()).on("bind", object)?;
        image.options.complete(socket.as_fd()).on("attach the packet filter of", object)?;
        sys::sock::listen(socket.as_fd(), image.backlog).on("listen on", object)?;
        put_back(socket.as_fd(), image).on("set up", object)?;
        Ok(vec![socket])
    }

    fn gate(open: &Open<'_>, rules: &Rules) -> Result<Option<Gate>, Error> {
        if rules.tcp != Tcp::Established {
            return Ok(None);
        }
        let object = || open.seen.object(Self::NAME);
        let address = sys::sock::local_address(open.local).on("ask for the address of", object)?;
        let address = Address(&address);
        let ip = address.ip().map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified());
        Ok(Some(Gate { address: ip, port: address.port() }))
    }

    /// Also those whose last step is still on its way: they would not be known where they arrive. Who
    /// does not come to it for long is not there (any address can be written as a sender's), unless
    /// the kernel keeps it waiting for its first word.
    fn waiting(open: &Open<'_>, rules: &Rules) -> Result<Option<Wait>, Error> {
        if rules.tcp != Tcp::Established {
            return Ok(None);
        }
        let object = || open.seen.object(Self::NAME);
        let (connected, _) = queue(open.local).on("count who waits at", object)?;
        if connected > 0 {
            let why = format!("{connected} wait there, and the program does not accept them");
            return Ok(Some(Wait { why, is_vital: true }));
        }
        let address = sys::sock::local_address(open.local).on("ask for the address of", object)?;
        let opening = half_open::count(&address).on("count who comes to", object)?;
        let is_vital = is_first_word_awaited(open.local).on("ask for the options of", object)?;
        let why = format!("{opening} are about to be connected there");
        Ok((opening > 0).then_some(Wait { why, is_vital }))
    }
}

pub(super) fn is_tcp(socket: &SocketSeen) -> bool {
    matches!(socket.domain, libc::AF_INET | libc::AF_INET6)
        && (socket.kind, socket.protocol) == (libc::SOCK_STREAM, libc::IPPROTO_TCP)
}

fn is_multipath(socket: &SocketSeen) -> bool {
    is_tcp(&SocketSeen { protocol: libc::IPPROTO_TCP, ..socket.clone() })
        && socket.protocol == libc::IPPROTO_MPTCP
}

/// The shape of a TCP socket of a domain that an image names.
pub(super) fn tcp_shape(domain: i32) -> io::Result<Shape> {
    if !matches!(domain, libc::AF_INET | libc::AF_INET6) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "TCP in another domain than IP"));
    }
    Ok(Shape { domain, kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_TCP })
}

fn listener_shape(domain: i32, is_multipath: bool) -> io::Result<Shape> {
    let shape = tcp_shape(domain)?;
    Ok(if is_multipath { Shape { protocol: libc::IPPROTO_MPTCP, ..shape } } else { shape })
}

fn read(open: &Open<'_>) -> io::Result<Image> {
    let socket = open.seen.socket.as_ref();
    let domain = socket.map_or(0, |socket| socket.domain);
    let is_multipath = socket.is_some_and(is_multipath);
    let options = Options::read(open.local, listener_shape(domain, is_multipath)?)?;
    let address = sys::sock::local_address(open.local)?;
    let (_, backlog) = queue(open.local)?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    Ok(Image { domain, address, backlog, options, is_multipath })
}

/// Until it listens it shares its port with every connection there: those that it has accepted are
/// made before it or after it. Another that listens there is in its way all the same.
fn bound(image: &Image, coming: &[IpAddr]) -> io::Result<OwnedFd> {
    let socket = image.options.socket(listener_shape(image.domain, image.is_multipath)?)?;
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    bind_coming(socket.as_fd(), &image.address, coming)?;
    Ok(socket)
}

/// TCP_DEFER_ACCEPT of tcp(7): who has said nothing yet is connected, and looks as if it were not.
fn is_first_word_awaited(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::sock::read_number(socket, libc::SOL_TCP, libc::TCP_DEFER_ACCEPT)? != 0)
}

/// What binding needed otherwise.
fn put_back(socket: BorrowedFd<'_>, image: &Image) -> io::Result<()> {
    for (level, name) in
        [(libc::SOL_SOCKET, libc::SO_REUSEADDR), (libc::SOL_IP, libc::IP_TRANSPARENT)]
    {
        let was_set = image.options.value(level, name).is_some();
        sys::sock::set_number(socket, level, name, was_set.into())?;
    }
    Ok(())
}

/// Of a listening socket, TCP_INFO has the connections that wait and the most that may, where
/// another has segments: tcpi_unacked and tcpi_sacked.
fn queue(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut room = [0; 32];
    sys::sock::read_option(socket, libc::SOL_TCP, libc::TCP_INFO, &mut room)?;
    let word = |at: usize| u32::from_ne_bytes([room[at], room[at + 1], room[at + 2], room[at + 3]]);
    Ok((word(24), word(28)))
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::super::Owner;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::net::{TcpListener, TcpStream};

    fn read_it(listener: &TcpListener) -> Image {
        use prost::Message as _;
        let table = crate::descriptors::trip::capture_own(&[listener]);
        Image::decode(&*table.objects[0].bytes).unwrap()
    }

    fn reusable(domain: i32, address: &[u8]) -> TcpListener {
        let socket = tcp_shape(domain).unwrap().socket().unwrap();
        for (level, name, value) in [
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::SOL_TCP, libc::TCP_NODELAY, 1),
            (libc::SOL_TCP, libc::TCP_KEEPIDLE, 77),
            (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 7),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
        ] {
            sys::sock::set_number(socket.as_fd(), level, name, value).unwrap();
        }
        sys::sock::bind(socket.as_fd(), address).unwrap();
        sys::sock::listen(socket.as_fd(), 17).unwrap();
        socket.into()
    }

    #[test]
    fn comes_back_with_its_address_backlog_and_options() {
        let any = super::super::address::v4(std::net::Ipv4Addr::LOCALHOST, 0);
        let listener = reusable(libc::AF_INET, &any);
        let trip = round_trip(&[&listener]);
        let copy = TcpListener::from(trip.take(0));
        let image: Image = trip.unchanged();
        assert_eq!(image.backlog, 17);
        assert_eq!(image.options.set_count(), 7, "{:?}", image.options);
        let address = listener.local_addr().unwrap();
        assert_eq!(copy.local_addr().unwrap(), address);
        drop(listener);
        let client = TcpStream::connect(address).unwrap();
        io::Write::write_all(&mut &client, b"hello").unwrap();
        copy.accept().unwrap();
    }

    /// A kernel without Multipath TCP has nothing to bring back.
    #[test]
    fn comes_back_with_multipath_and_accepts_whoever_has_none() {
        let any = super::super::address::v4(std::net::Ipv4Addr::LOCALHOST, 0);
        let Ok(socket) = listener_shape(libc::AF_INET, true).unwrap().socket() else { return };
        for (level, name, value) in [
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
            (libc::SOL_TCP, libc::TCP_NODELAY, 1),
            (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, 7),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000),
        ] {
            sys::sock::set_number(socket.as_fd(), level, name, value).unwrap();
        }
        sys::sock::bind(socket.as_fd(), &any).unwrap();
        sys::sock::listen(socket.as_fd(), 17).unwrap();
        let listener = TcpListener::from(socket);
        let trip = round_trip(&[&listener]);
        let copy = TcpListener::from(trip.take(0));
        let image: Image = trip.unchanged();
        assert!(image.is_multipath && image.backlog == 17);
        assert_eq!(image.options.set_count(), 4, "{:?}", image.options);
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = TcpStream::connect(address).unwrap();
        io::Write::write_all(&mut &client, b"hello").unwrap();
        let accepted = copy.accept().unwrap().0;
        let protocol = |socket: BorrowedFd<'_>| {
            sys::sock::read_number(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap()
        };
        assert_eq!(protocol(copy.as_fd()), libc::IPPROTO_MPTCP);
        assert_eq!(protocol(accepted.as_fd()), libc::IPPROTO_TCP);
    }

    #[test]
    fn comes_back_on_ipv6_without_ipv4() {
        let any = super::super::address::v6(std::net::Ipv6Addr::UNSPECIFIED, 0);
        let socket = tcp_shape(libc::AF_INET6).unwrap().socket().unwrap();
        for (level, name) in
            [(libc::SOL_IPV6, libc::IPV6_V6ONLY), (libc::SOL_SOCKET, libc::SO_REUSEPORT)]
        {
            sys::sock::set_number(socket.as_fd(), level, name, 1).unwrap();
        }
        sys::sock::bind(socket.as_fd(), &any).unwrap();
        sys::sock::listen(socket.as_fd(), 5).unwrap();
        let image: Image = round_trip(&[&socket]).unchanged();
        assert_eq!(image.options.set_count(), 2, "{:?}", image.options);
    }

    #[test]
    fn an_address_that_is_not_here_is_refused_before() {
        let elsewhere = super::super::address::v4([192, 0, 2, 7].into(), 80);
        let image = Image { domain: libc::AF_INET, address: elsewhere, ..Image::default() };
        let refusals = Listener::check(&image, &[], Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] });
        assert!(refusals[0].to_string().contains("192.0.2.7:80"), "{}", refusals[0]);
    }

    #[test]
    fn a_port_in_use_is_refused_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(Listener::check(&read_it(&listener), &[], Ground { owner: Owner { pid: 1, fd: 3 }, coming: &[] }).len(), 1);
    }

    #[test]
    fn connections_that_nobody_accepted_are_noted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let close = Rules { tcp: Tcp::Close, ..Rules::default() };
        assert_eq!(describe(&[&listener], close).notes, []);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(describe(&[&listener], close).notes.len(), 1);
    }
}
