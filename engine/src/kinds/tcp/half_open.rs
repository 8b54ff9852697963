//! Connections that are being opened: only the kernel's list has them whole, by sock_diag(7).

use super::diagnosis::{self, Listed, SYN_RECEIVED, SYN_SENT};
use crate::kinds::address::Address;
use std::io;

/// Whom a socket at this address asks, if it is being opened. getpeername(2) does not say before it
/// is connected.
pub(super) fn peer(local: &[u8], inode: u64) -> io::Result<Option<Vec<u8>>> {
    let mut found = diagnosis::list(Address(local), SYN_SENT)?.into_iter();
    let asking = found.find(|listed| listed.inode == inode);
    Ok(asking.map(|listed| listed.peer))
}

/// How many have asked at an address, and have not answered our answer yet.
pub(in crate::kinds) fn count(local: &[u8]) -> io::Result<u32> {
    let asked = Address(local);
    let is_here = |listed: &Listed| {
        let everywhere = asked.ip().is_some_and(|ip| ip.is_unspecified());
        everywhere || Address(&listed.local).ip() == asked.ip()
    };
    let listed = diagnosis::list(asked.clone(), SYN_RECEIVED)?;
    Ok(u32::try_from(listed.iter().filter(|one| is_here(one)).count()).unwrap_or(u32::MAX))
}
