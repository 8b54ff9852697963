//! A connection that is over: what nobody has read of it yet, and how it ended.

use super::dismissal::reset_at_close;
use super::image::Image;
use crate::kinds::address::{Address, v4, v6};
use crate::kinds::tcp_listen::tcp_shape;
use crate::sys;
use nix::sys::socket::{MsgFlags, recv, send};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Reads one that is over.
pub(super) fn read(socket: BorrowedFd<'_>, domain: i32) -> io::Result<Image> {
    // SO_ERROR would take the error away.
    let failed = sys::fd::poll(socket, 0, 0)? & libc::POLLERR != 0;
    Ok(Image { domain, was_over: !failed, live: None, unread: unread(socket)? })
}

/// To look into an empty queue would take the error away as well.
fn unread(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; sys::fd::readable_bytes(socket)?];
    if !bytes.is_empty() {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let length = recv(socket.as_raw_fd(), &mut bytes, flags)?;
        bytes.truncate(length);
    }
    Ok(bytes)
}

/// How long a step may take over the loopback device: it is done when the call returns, unless the
/// network's own thread is busy.
const STEP_MAX: Duration = Duration::from_secs(2);

/// On a host with one processor that thread waits for us: we go before it in the freeze, and to yield
/// (sched_yield(2)) makes room for our like alone.
const STEP_PAUSE: Duration = Duration::from_micros(50);

/// A socket whose connection is over.
pub(super) fn make(image: &Image) -> io::Result<OwnedFd> {
    let reset = match reset(image) {
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

/// A connection to ourselves whose other end says the rest and is closed without a farewell.
fn reset(image: &Image) -> io::Result<OwnedFd> {
    let listener = tcp_shape(libc::AF_INET)?.socket()?;
    sys::sock::bind(listener.as_fd(), &v4(Ipv4Addr::LOCALHOST, 0))?;
    sys::sock::listen(listener.as_fd(), 1)?;
    let port = Address(&sys::sock::local_address(listener.as_fd())?).port();

    let socket = tcp_shape(image.domain)?.socket()?;
    let address = match image.domain {
        libc::AF_INET => v4(Ipv4Addr::LOCALHOST, port),
        _ => v6(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port),
    };
    let room = i32::try_from(image.unread.len()).unwrap_or(i32::MAX).max(1 << 16);
    sys::sock::set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room)?;
    sys::sock::connect(socket.as_fd(), &address)?;
    let peer = sys::sock::accept(listener.as_fd())?;
    sys::sock::set_number(peer.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room)?;
    say(&peer, &socket, &image.unread)?;
    reset_at_close(peer.as_fd())?;
    drop(peer);
    let is_reset = || Ok(sys::fd::poll(socket.as_fd(), 0, 1)? != 0);
    await_step(is_reset)?;
    Ok(socket)
}

fn say(peer: &OwnedFd, socket: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    let whole = bytes.len();
    while !bytes.is_empty() {
        let sent = send(peer.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        bytes = &bytes[sent..];
    }
    await_step(|| Ok(sys::fd::readable_bytes(socket.as_fd())? == whole))
}

fn await_step(mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let end = Instant::now() + STEP_MAX;
    while !is_done()? {
        if Instant::now() > end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(STEP_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    fn over(image: &Image) -> TcpStream {
        let made = make(image).unwrap();
        let again = read(made.as_fd(), image.domain).unwrap();
        assert_eq!(again, *image);
        made.into()
    }

    #[test]
    fn one_that_was_over_stays_over_on_ipv6_too() {
        for domain in [libc::AF_INET, libc::AF_INET6] {
            let image = Image { domain, was_over: true, ..Image::default() };
            assert_eq!(over(&image).read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn one_whose_reset_nobody_has_seen_yet_tells_of_it_after_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        let room = libc::SO_RCVBUFFORCE;
        sys::sock::set_number(client.as_fd(), libc::SOL_SOCKET, room, 1 << 20).unwrap();
        server.write_all(&[7; 300_000]).unwrap();
        await_step(|| Ok(sys::fd::readable_bytes(client.as_fd())? == 300_000)).unwrap();
        sys::sock::set_option(
            server.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            &[1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat(),
        )
        .unwrap();
        drop(server);
        await_step(|| Ok(sys::fd::poll(client.as_fd(), 0, 1)? != 0)).unwrap();

        let image = read(client.as_fd(), libc::AF_INET).unwrap();
        assert_eq!((image.was_over, image.unread.len()), (false, 300_000));
        let mut copy = over(&image);
        let mut rest = vec![0; 300_000];
        copy.read_exact(&mut rest).unwrap();
        assert!(rest.iter().all(|&byte| byte == 7));
        assert_eq!(copy.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
