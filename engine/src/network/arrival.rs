//! The addresses that come with a tree, as its layout has them.

use super::address::Address;
use super::addresses::{self, examine_arrival};
use super::announce;
use crate::error::{Error, Object};
use crate::refusal::Refusal;
use std::net::IpAddr;

/// Each as `ADDR/LEN[@DEV]`.
fn read(addresses: &[String]) -> Result<Vec<Address>, Error> {
    let malformed = |text: &String, why: String| {
        Error::invalid("read", Object::Image { part: format!("address {text}") }, why)
    };
    let read =
        |text: &String| text.parse::<Address>().map_err(|why| malformed(text, why.to_string()));
    addresses.iter().map(read).collect()
}

pub(crate) fn ips(addresses: &[String]) -> Result<Vec<IpAddr>, Error> {
    Ok(read(addresses)?.into_iter().map(|address| address.ip).collect())
}

/// What this host lacks for them.
pub(crate) fn lacking(addresses: &[String]) -> Result<Vec<Refusal>, Error> {
    let mut lacking = Vec::new();
    for address in read(addresses)? {
        lacking.extend(examine_arrival(&address)?);
    }
    Ok(lacking)
}

/// Adds them to this host and announces them. What went wrong with each; all are tried.
pub fn arrive(addresses: &[String]) -> Vec<Error> {
    let each = |address: &Address| addresses::add(address).and_then(|_| announce(address));
    of_each(addresses, each)
}

/// Announces them once more: frames are lost.
pub fn announce_again(addresses: &[String]) -> Vec<Error> {
    of_each(addresses, announce)
}

fn of_each(texts: &[String], mut with: impl FnMut(&Address) -> Result<(), Error>) -> Vec<Error> {
    match read(texts) {
        Ok(addresses) => addresses.iter().filter_map(|address| with(address).err()).collect(),
        Err(error) => vec![error],
    }
}
