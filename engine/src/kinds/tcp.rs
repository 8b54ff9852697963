//! A TCP connection, or what is left of one.
//!
//! It cannot be moved yet. A rule may have it closed: then the program finds, on the destination,
//! a connection that its peer has reset, which every network program has to cope with.

use super::address::{Address, v4, v6};
use super::tcp_listen::{is_tcp, tcp_shape};
use super::{DescriptionImage, Findings, Kind, Open, Place, Seen, Tcp, Tree, sole};
use crate::error::{Error, OnObject as _};
use crate::sys;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

pub(super) struct Connection;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    domain: i32,
    /// It was over before the move: the program may know already.
    #[prost(bool, tag = "2")]
    was_over: bool,
}

impl Kind for Connection {
    const NAME: &'static str = "TCP connection";
    type Image = Image;

    fn claims(seen: &Seen) -> bool {
        seen.socket.as_ref().is_some_and(|socket| {
            is_tcp(socket) && !socket.listening && (socket.hung_up || socket.tcp_state != CLOSE)
        })
    }

    fn examine(of: &[&Seen], tree: &dyn Tree, findings: &mut Findings) {
        let object = of[0].object(Self::NAME);
        let peer = peer(of[0]).unwrap_or_else(|_| "an unknown address".to_owned());
        match tree.rules().tcp {
            _ if is_over(of[0]) => {}
            Tcp::Refuse => findings.refuse(
                object,
                format!("to {peer} cannot be moved yet"),
                "Let the program close it, or allow `--tcp close`.",
            ),
            Tcp::Close => findings.note(object, format!("to {peer} will be reset")),
        }
    }

    fn capture(of: &[Open<'_>], _tree: &dyn Tree) -> Result<Image, Error> {
        let domain = of[0].seen.socket.as_ref().map_or(0, |socket| socket.domain);
        Ok(Image { domain, was_over: is_over(of[0].seen) })
    }

    fn create(
        image: &Image,
        descriptions: &[DescriptionImage],
        at: &Place<'_>,
    ) -> Result<Vec<OwnedFd>, Error> {
        sole(Self::NAME, descriptions)?;
        Ok(vec![make(image).on("make", || at.object(Self::NAME))?])
    }
}

/// TCP_CLOSE of include/net/tcp_states.h.
const CLOSE: u8 = 7;

fn is_over(seen: &Seen) -> bool {
    seen.socket.as_ref().is_some_and(|socket| socket.tcp_state == CLOSE)
}

fn peer(seen: &Seen) -> io::Result<String> {
    let address = sys::sock::peer_address(seen.steal()?.as_fd())?;
    Ok(Address(&address.unwrap_or_default()).to_string())
}

/// How long a reset may take over the loopback device: it is there when `close` returns, unless
/// the network's own thread is busy.
const RESET_MS_MAX: i32 = 500;

fn make(image: &Image) -> io::Result<OwnedFd> {
    let reset = match reset(image.domain) {
        // A host whose loopback device is down: a socket that never connected hangs up as well.
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => {
            return tcp_shape(image.domain)?.socket();
        }
        reset => reset?,
    };
    if image.was_over {
        // Reading the error takes it away: from now on reads only say that it ended.
        sys::sock::read_number(reset.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)?;
    }
    Ok(reset)
}

/// A connection to ourselves whose other end is closed without a farewell.
fn reset(domain: i32) -> io::Result<OwnedFd> {
    let listener = tcp_shape(libc::AF_INET)?.socket()?;
    sys::sock::bind(listener.as_fd(), &v4(Ipv4Addr::LOCALHOST, 0))?;
    sys::sock::listen(listener.as_fd(), 1)?;
    let port = Address(&sys::sock::local_address(listener.as_fd())?).port();

    let socket = tcp_shape(domain)?.socket()?;
    let address = match domain {
        libc::AF_INET => v4(Ipv4Addr::LOCALHOST, port),
        _ => v6(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port),
    };
    sys::sock::connect(socket.as_fd(), &address)?;
    let peer = sys::sock::accept(listener.as_fd())?;
    // SO_LINGER on, with no time: close(2) sends a reset.
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    sys::sock::set_option(peer.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    drop(peer);
    await_reset(&socket)?;
    Ok(socket)
}

fn await_reset(socket: &OwnedFd) -> io::Result<()> {
    match sys::fd::poll(socket.as_fd(), 0, RESET_MS_MAX)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rules;
    use super::*;
    use crate::descriptors::trip::{describe, round_trip};
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn is_refused_by_its_peer_unless_it_may_be_closed() {
        let (client, server) = connected();
        let refusals = describe(&[&client], Rules::default()).refusals;
        let peer = server.local_addr().unwrap().to_string();
        assert!(refusals[0].to_string().contains(&peer), "{}", refusals[0]);
        let close = Rules { tcp: Tcp::Close, ..Rules::default() };
        let findings = describe(&[&client], close);
        assert_eq!((findings.refusals.len(), findings.notes.len()), (0, 1));
    }

    #[test]
    fn is_found_reset_on_the_destination() {
        let (client, _server) = connected();
        let mut copy = TcpStream::from(round_trip(&[&client]).take(0));
        let error = copy.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(copy.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn one_that_was_over_stays_over_on_ipv6_too() {
        let image = Image { domain: libc::AF_INET6, was_over: true };
        let over = make(&image).unwrap();
        assert_eq!(describe(&[&over], Rules::default()).refusals, []);
        let trip = round_trip(&[&over]);
        let mut copy = TcpStream::from(trip.take(0));
        assert_eq!(trip.unchanged::<Image>(), image);
        assert_eq!(copy.read(&mut [0]).unwrap(), 0);
    }
}
