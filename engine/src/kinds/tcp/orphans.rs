//! Connections that their program has closed before all was said: the kernel says the rest, and they are
//! behind no descriptor. They do not move, so their peers have to hear the end of them here.

use super::diagnosis;
use super::info::State;
use crate::kinds::address::{self, Address};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many there are whose peer has not acknowledged the end yet, at addresses that are asked for.
pub(crate) fn unheard(is_asked_for: impl Fn(IpAddr) -> bool) -> io::Result<usize> {
    let of_all = [address::v4(Ipv4Addr::UNSPECIFIED, 0), address::v6(Ipv6Addr::UNSPECIFIED, 0)];
    let mut count = 0;
    for any in &of_all {
        let listed = diagnosis::list(Address(any), states())?;
        let is_one = |local: &[u8]| Address(local).ip().is_some_and(|ip| is_asked_for(ip.to_canonical()));
        count += listed.iter().filter(|one| one.inode == 0 && is_one(&one.local)).count();
    }
    Ok(count)
}

fn states() -> u32 {
    let ending = [State::FinWait1, State::Closing, State::LastAck];
    ending.into_iter().fold(0, |states, state| states | state.bit())
}
