//! Ethernet frames as they pass the interfaces of a host, by a packet socket: packet(7).

use anyhow::{Context, Result, bail, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

#[derive(Debug)]
pub struct Frames {
    socket: OwnedFd,
    /// The index of the interface, where it is bound to one.
    interface: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub length: usize,
    pub interface: usize,
    /// This host has sent it.
    pub is_outgoing: bool,
    /// When the kernel saw it, since 1970.
    pub at: Duration,
}

/// Frames wait here while their reader does not get the processor.
const BUFFER_BYTES: usize = 256 << 20;

/// if_packet.h
const PACKET_OUTGOING: u8 = 4;

impl Frames {
    /// Those of every interface.
    pub fn of_all() -> Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll);
        let socket = socket.context("open a packet socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("enlarge its buffer")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for timestamps")?;
        setsockopt(&socket, sockopt::RxqOvfl, &1).context("ask for what is lost")?;
        Ok(Self { socket, interface: None })
    }

    pub fn of(name: &str) -> Result<Self> {
        let frames = Self::of_all()?;
        let address = link_address(name)?;
        bind(frames.socket.as_raw_fd(), &address).with_context(|| format!("bind to {name}"))?;
        Ok(Self { interface: Some(address.ifindex()), ..frames })
    }

    /// Waits no longer than this for the next one.
    pub fn wait_at_most(&self, limit: Duration) -> Result<()> {
        let limit = TimeVal::microseconds(i64::try_from(limit.as_micros())?);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &limit).context("limit its waits")
    }

    /// Waits for the next one; `None` when none came in time. An error when frames were lost because
    /// nobody read them.
    pub fn receive(&self, frame: &mut [u8]) -> Result<Option<Seen>> {
        loop {
            let seen = self.receive_any(frame)?;
            // Until it was bound it heard all of them.
            let is_other = |seen: Seen| self.interface.is_some_and(|own| own != seen.interface);
            if !seen.is_some_and(is_other) {
                return Ok(seen);
            }
        }
    }

    fn receive_any(&self, frame: &mut [u8]) -> Result<Option<Seen>> {
        let mut control = cmsg_space!(TimeSpec, u32);
        let mut buffers = [IoSliceMut::new(frame)];
        let descriptor = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
        let message = match recvmsg::<LinkAddr>(descriptor, &mut buffers, Some(&mut control), flags)
        {
            Err(Errno::EAGAIN) => return Ok(None),
            message => message.context("receive a frame")?,
        };
        let from = message.address.context("a frame from nowhere")?;
        let mut at = None;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmTimestampns(time) => at = Some(Duration::from(time)),
                ControlMessageOwned::RxqOvfl(lost) => ensure!(lost == 0, "{lost} frames were lost"),
                other => bail!("{other:?} with a frame"),
            }
        }
        Ok(Some(Seen {
            length: message.bytes,
            interface: from.ifindex(),
            is_outgoing: from.pkttype() == PACKET_OUTGOING,
            at: at.context("a frame without its time")?,
        }))
    }

    /// Sends a frame by the interface that it is bound to.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }
}

/// The index of an interface of this host.
pub fn index(name: &str) -> Result<usize> {
    Ok(link_address(name)?.ifindex())
}

fn link_address(name: &str) -> Result<LinkAddr> {
    let addresses = getifaddrs().context("list the interfaces")?;
    let mut named = addresses.filter(|address| address.interface_name == name);
    let link = named.find_map(|address| address.address?.as_link_addr().copied());
    link.with_context(|| format!("there is no interface {name}"))
}
