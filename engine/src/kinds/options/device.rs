//! Options that name a device by its index, which is another one on another host: they travel with
//! its name.

use crate::sys;
use std::io;
use std::os::fd::BorrowedFd;

/// How the kernel keeps the index: IP_UNICAST_IF has it in network order, see ip(7).
#[derive(Clone, Copy)]
enum Order {
    Host,
    Network,
}

/// IPV6_UNICAST_IF, which `libc` does not have.
const UNICAST_IF_V6: i32 = 76;

fn order(option: (i32, i32)) -> Option<Order> {
    match option {
        (libc::SOL_IP, libc::IP_UNICAST_IF) | (libc::SOL_IPV6, UNICAST_IF_V6) => {
            Some(Order::Network)
        }
        (libc::SOL_IPV6, libc::IPV6_MULTICAST_IF) => Some(Order::Host),
        _ => None,
    }
}

/// The value as it travels: the device's name, empty for none.
pub(super) fn to_name(
    socket: BorrowedFd<'_>,
    option: (i32, i32),
    value: Vec<u8>,
) -> io::Result<Vec<u8>> {
    let Some(order) = order(option) else { return Ok(value) };
    let word: [u8; 4] = value.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let index = match order {
        Order::Host => u32::from_ne_bytes(word),
        Order::Network => u32::from_be_bytes(word),
    };
    if index == 0 { Ok(Vec::new()) } else { sys::device::name(socket, index) }
}

/// The value as this host's kernel takes it.
pub(super) fn to_index(
    socket: BorrowedFd<'_>,
    option: (i32, i32),
    value: &[u8],
) -> io::Result<Vec<u8>> {
    let Some(order) = order(option) else { return Ok(value.to_vec()) };
    let index = if value.is_empty() { 0 } else { sys::device::index(socket, value)? };
    Ok(match order {
        Order::Host => index.to_ne_bytes().to_vec(),
        Order::Network => index.to_be_bytes().to_vec(),
    })
}
