//! The addresses that move with a tree: what they are here, and how they leave and come back.

use crate::cables::Cables;
use engine::network::addresses::{self, Assigned};
use engine::network::{Address, announce};
use engine::{Error, Object, Refusal};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Stands in the journal from the beginning: an address that is away outlives whoever took it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// As `ADDR/LEN[@DEV]`; the device is one of the destination.
    pub(crate) named: Vec<String>,
    /// What they are on this host: [`Assigned`], encoded.
    here: Vec<Vec<u8>>,
    /// Those of a network namespace of the tree's own, in which it has its addresses.
    #[serde(default, skip_serializing_if = "Cables::is_empty")]
    pub(crate) cables: Cables,
    /// Where they go at the destination: `[DEV=]NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) bridges: Vec<String>,
}

/// `[DEV=]NAME`, as the command line takes it.
pub(crate) fn read_bridge(text: &str) -> Result<String, String> {
    let (device, bridge) = text.split_once('=').unwrap_or(("any", text));
    match [device, bridge].into_iter().find(|name| !engine::network::is_device_name(name)) {
        None => Ok(text.to_owned()),
        Some(name) => Err(format!("no device can be called {name:?}; write it as br0 or eth0=br0")),
    }
}

/// As the command line takes it.
pub(crate) fn read(text: &str) -> Result<String, String> {
    let address: Address = text.parse().map_err(|why| format!("{why}"))?;
    Ok(address.to_string())
}

impl Addresses {
    /// Looks at them before anything is touched. One that is not here is refused by [`examine`].
    pub(crate) fn find(root: i32, named: &[String], bridges: &[String]) -> Result<Self, Error> {
        let mut here = Vec::with_capacity(named.len());
        for address in named {
            here.extend(
                addresses::find(&on_any_device(address)?)?.map(|found| found.encode_to_vec()),
            );
        }
        let (named, bridges) = (named.to_vec(), bridges.to_vec());
        Ok(Self { named, here, cables: Cables::of(root)?, bridges })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.cables.is_empty()
    }

    /// Takes them from this host.
    pub(crate) fn give(&self) -> Result<(), Error> {
        self.named
            .iter()
            .try_for_each(|address| addresses::remove(&on_any_device(address)?).map(drop))
    }

    /// They are of this host again, and it says so. All are tried; the error is the first.
    pub(crate) fn take(&self) -> Result<(), Error> {
        let each = self.here.iter().map(|here| take(here));
        each.fold(Ok(()), Result::and)
    }
}

fn take(here: &[u8]) -> Result<(), Error> {
    let part = || Object::Image { part: "address in the journal".to_owned() };
    let assigned = Assigned::decode(here)
        .map_err(|why| Error::invalid("read the", part(), why.to_string()))?;
    addresses::put_back(&assigned)?;
    let address = assigned.address();
    announce(&address.map_err(|why| Error::invalid("read the", part(), why.to_string()))?)
}

/// Everything that stands against taking them from this host. `destination`: when it is known.
pub(crate) fn examine(
    named: &[String],
    destination: Option<IpAddr>,
) -> Result<Vec<Refusal>, Error> {
    let mut refusals = Vec::new();
    for address in named {
        refusals.extend(addresses::examine_removal(&on_any_device(address)?, destination)?);
    }
    Ok(refusals)
}

/// Which device it is on here is for this host to say.
fn on_any_device(text: &str) -> Result<Address, Error> {
    let address = text.parse::<Address>().map_err(|why| {
        let part = Object::Image { part: format!("address {text}") };
        Error::invalid("read", part, why.to_string())
    })?;
    Ok(Address { device: None, ..address })
}
