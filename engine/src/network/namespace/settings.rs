//! The settings of a namespace: what was written to /proc/sys/net in it, sysctl(8).
//!
//! What travels is what differs from a new namespace of the same host: so the destination's own
//! defaults stay what they are, and what somebody has set for this tree comes along. In another
//! namespace than the first one the kernel lets nobody write what is not of that namespace alone,
//! so whatever stands here cannot change the host.

use super::Namespace;
use crate::error::{Error, Object, OnObject as _};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

/// `ipv4/ip_forward` = `1`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Setting {
    /// Below /proc/sys/net.
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

const ROOT: &str = "/proc/sys/net";
/// Directories with a directory for each device.
const OF_DEVICES: [&str; 4] = ["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"];
/// What one cannot have without the other.
const OF_THE_DEVICE_ITSELF: &str = "mtu";
pub(super) const SETTINGS_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 4096;

type Settings = BTreeMap<String, String>;

/// What differs in the calling thread's namespace from a new one.
pub(super) fn read() -> Result<Vec<Setting>, Error> {
    let here = all()?;
    let new = {
        let new = Namespace::make()?;
        let _inside = new.enter()?;
        all()?
    };
    let differs = |(path, value): &(String, String)| new.get(&usual(path, &new)) != Some(value);
    let set = here.into_iter().filter(differs);
    Ok(set.map(|(path, value)| Setting { path, value }).collect())
}

/// Where a new namespace says the same: a device begins with what stands for all new ones.
fn usual(path: &str, new: &Settings) -> String {
    if new.contains_key(path) {
        return path.to_owned();
    }
    let device = OF_DEVICES.iter().find_map(|of| path.strip_prefix(of)?.strip_prefix('/'));
    match device.and_then(|rest| rest.split_once('/')) {
        Some((device, name)) => {
            path.replacen(&format!("/{device}/{name}"), &format!("/default/{name}"), 1)
        }
        None => path.to_owned(),
    }
}

fn all() -> Result<Settings, Error> {
    let mut found = Settings::new();
    collect(Path::new(ROOT), &mut found).on("read the settings below", root)?;
    Ok(found)
}

fn root() -> Object {
    Object::File { path: ROOT.to_owned() }
}

/// Those that can be read and written. Some can only be written, and do something.
fn collect(directory: &Path, found: &mut Settings) -> io::Result<()> {
    const READ_AND_WRITE: u32 = 0o600;
    for entry in fs::read_dir(directory)?.flatten() {
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() {
            collect(&path, found)?;
        } else if metadata.permissions().mode() & READ_AND_WRITE == READ_AND_WRITE
            && entry.file_name() != OF_THE_DEVICE_ITSELF
            && let Ok(value) = fs::read_to_string(&path)
            && let Some(name) = path.strip_prefix(ROOT).ok().and_then(Path::to_str)
        {
            found.insert(name.to_owned(), value.trim_end().to_owned());
        }
    }
    Ok(())
}

/// Sets them in the calling thread's namespace. What is set for all devices sets each of them, so
/// that comes first; and since one may still change another, they are looked at again.
pub(super) fn make(wanted: &[Setting]) -> Result<(), Error> {
    const TURNS: u32 = 3;
    wanted.iter().try_for_each(check)?;
    let mut wanted: Vec<&Setting> = wanted.iter().collect();
    wanted.sort_by_key(|setting| is_of_a_device(&setting.path));
    for _ in 0..TURNS {
        for setting in &wanted {
            if value(setting)? != setting.value {
                fs::write(file(setting), &setting.value).on("set", || object(setting))?;
            }
        }
    }
    for setting in wanted {
        if value(setting)? != setting.value {
            return Err(Error::invalid("set", object(setting), "it stays what it was"));
        }
    }
    Ok(())
}

fn value(setting: &Setting) -> Result<String, Error> {
    let value = fs::read_to_string(file(setting)).on("read", || object(setting))?;
    Ok(value.trim_end().to_owned())
}

fn is_of_a_device(path: &str) -> bool {
    let of_all = |path: &str| path.starts_with("all/") || path.starts_with("default/");
    let mut within = OF_DEVICES.iter().filter_map(|of| path.strip_prefix(of)?.strip_prefix('/'));
    within.next().is_some_and(|path| !of_all(path))
}

/// It comes from another host, and is a path that we open.
fn check(setting: &Setting) -> Result<(), Error> {
    let mut parts = Path::new(&setting.path).components();
    let is_plain = parts.all(|part| matches!(part, Component::Normal(_)));
    match is_plain && !setting.path.is_empty() && setting.value.len() <= VALUE_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::invalid("set", object(setting), "it is no setting of a network")),
    }
}

fn file(setting: &Setting) -> String {
    format!("{ROOT}/{}", setting.path)
}

fn object(setting: &Setting) -> Object {
    let Setting { path, value } = setting;
    Object::Network { name: format!("net/{path} = {value:?} of a network namespace") }
}
