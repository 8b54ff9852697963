//! What one source may bring, and what of a tree goes beyond it.
//!
//! The same rules are held against the inventory, where every blocker is said at once, and against
//! the image before anything of it is restored: an authorised source is believed in neither.

use super::capabilities;
use engine::aspects::{Privileges, privileges_in};
use engine::image::{Layout, TreeImage};
use engine::inventory::Inventory;
use engine::network::NamespaceImage;
use ipnet::IpNet;
use protocol::Refusal;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// `None` is "any".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub users: Option<BTreeSet<u32>>,
    pub groups: Option<BTreeSet<u32>>,
    /// Prefixes of whole path components.
    pub executables: Option<Vec<PathBuf>>,
    /// Beneath which everything lies that a tree has open or maps. Prefixes as well.
    pub paths: Option<Vec<PathBuf>>,
    /// One bit each.
    pub capabilities: u64,
    pub memory_bytes_max: u64,
    /// Of this source on their way here at once.
    pub trees_max: usize,
    /// Of one tree.
    pub processes_max: usize,
    pub threads_max: usize,
    /// Networks of which addresses may come with a tree. Without them any may, unless `users` says
    /// that root is not let in from there.
    pub addresses: Option<Vec<IpNet>>,
    /// Bridges of this host that a network namespace of a tree's own may be plugged into. Without
    /// them any, unless `users` says that root is not let in from there.
    pub bridges: Option<BTreeSet<String>>,
}

/// Without a policy: who root has let in may bring what root may have, but not so much of it that
/// the host is lost. See docs/policy.md.
impl Default for Rules {
    fn default() -> Self {
        Self {
            users: None,
            groups: None,
            executables: None,
            paths: None,
            capabilities: u64::MAX,
            memory_bytes_max: u64::MAX,
            trees_max: 8,
            processes_max: 4096,
            threads_max: 16_384,
            addresses: None,
            bridges: None,
        }
    }
}

const ADVICE: &str = "Ask the destination's operator to allow it in policy.toml.";

impl Rules {
    /// Everything that an inventory has and may not have.
    pub fn against_inventory(&self, inventory: &Inventory) -> Result<Vec<Refusal>, engine::Error> {
        let mut refusals: Vec<Refusal> =
            inventory.layout.iter().flat_map(|layout| self.against_layout(layout)).collect();
        refusals.extend(inventory.privileges.iter().flat_map(|held| self.against_holder(held)));
        let paths = inventory.executables.iter().collect::<BTreeSet<_>>();
        refusals.extend(paths.into_iter().filter_map(|path| {
            let object = format!("the executable {path}");
            self.against_path(path).map(|reason| refusal(object, reason))
        }));
        if let Some(outline) = &inventory.outline {
            refusals.extend(self.against_descriptors(outline)?);
            refusals.extend(self.against_makers(outline)?);
        }
        refusals.extend(self.against_memory(inventory.memory_bytes));
        // What is open twice, and mapped besides, is one thing to say.
        let mut said = BTreeSet::new();
        refusals.retain(|refusal| said.insert(refusal.to_string()));
        Ok(refusals)
    }

    /// The size of what is about to be staged, and what it maps.
    pub fn against_layout(&self, layout: &Layout) -> Vec<Refusal> {
        let processes = layout.processes.len();
        let threads: usize = layout.processes.iter().map(|process| process.tids.len()).sum();
        let bounds =
            [("processes", processes, self.processes_max), ("threads", threads, self.threads_max)];
        let exceeded = bounds.into_iter().filter(|(_, count, most)| count > most);
        let exceeded = exceeded.map(|(what, count, most)| {
            let reason = format!("has {count} {what}, and the destination's policy allows {most}");
            refusal("the tree".to_owned(), reason)
        });
        let addresses = layout.addresses.iter().filter(|address| !self.allows_address(address));
        let addresses = addresses.map(|address| {
            let reason = "may not come here by the destination's policy".to_owned();
            refusal(format!("the address {address}"), reason)
        });
        let network = layout.network.iter().flat_map(|network| self.against_network(network));
        exceeded.chain(addresses).chain(network).chain(self.against_mappings(layout)).collect()
    }

    /// What it is plugged into, and who it says that it is there. Once it runs, root in it may take
    /// other addresses: what bounds it then is its bridge.
    fn against_network(&self, network: &NamespaceImage) -> Vec<Refusal> {
        let allows = |bridge: &str| match &self.bridges {
            None => self.users.is_none(),
            Some(bridges) => bridges.contains(bridge),
        };
        let reason = || "may not come here by the destination's policy".to_owned();
        let bridges = network.bridges().filter(|(_, bridge)| !allows(bridge));
        let bridges = bridges.map(|(device, bridge)| {
            refusal(format!("a cable of the tree ({device}) to the bridge {bridge}"), reason())
        });
        let ips = network.ips().into_iter().filter(|ip| !self.allows_ip(*ip));
        let addresses = ips.map(|ip| refusal(format!("the address {ip}"), reason()));
        bridges.chain(addresses).collect()
    }

    /// The first thing in an image that nobody may bring, or that it does not say.
    pub fn against_image(&self, image: &TreeImage) -> Result<Option<Refusal>, engine::Error> {
        for process in image.processes.iter().filter(|process| !process.is_zombie) {
            for thread in &process.threads {
                let held = privileges_in(process.pid, thread.tid, &thread.aspects)?;
                let held = held.unwrap_or_else(|| everything(process.pid, thread.tid));
                if let Some(refusal) = self.against_holder(&held).into_iter().next() {
                    return Ok(Some(refusal));
                }
            }
            let path = process.memory.as_ref().map_or("", |memory| &memory.executable);
            if let Some(reason) = self.against_path(path) {
                let object = format!("the executable {path} of process {}", process.pid);
                return Ok(Some(refusal(object, reason)));
            }
        }
        let Some(descriptors) = &image.descriptors else { return Ok(None) };
        let mut refusals = self.against_makers(descriptors)?;
        refusals.extend(self.against_descriptors(descriptors)?);
        Ok(refusals.into_iter().next())
    }

    pub fn against_memory(&self, bytes: u64) -> Option<Refusal> {
        let most = self.memory_bytes_max;
        (bytes > most).then(|| {
            // Rounded apart: "has 0, allows 0" would be nonsense.
            let (bytes, most) = (bytes.div_ceil(1 << 20), most >> 20);
            let reason =
                format!("has {bytes} MiB of memory, and the destination's policy allows {most}");
            refusal("the tree".to_owned(), reason)
        })
    }

    fn against_holder(&self, held: &Privileges) -> Vec<Refusal> {
        let object = match held.pid == held.tid {
            true => format!("process {}", held.pid),
            false => format!("thread {} of process {}", held.tid, held.pid),
        };
        let mut reasons = Vec::new();
        if let Some(user) = beyond(&held.users, self.users.as_ref()) {
            reasons.push(format!(
                "runs as user {user}, and the destination's policy does not allow that"
            ));
        }
        if let Some(group) = beyond(&held.groups, self.groups.as_ref()) {
            reasons.push(format!(
                "is in group {group}, and the destination's policy does not allow that"
            ));
        }
        let more = held.capabilities & !self.capabilities;
        if more != 0 {
            let names = capabilities::names(more);
            reasons.push(format!(
                "may have {names}, and the destination's policy does not allow that"
            ));
        }
        reasons.into_iter().map(|reason| refusal(object.clone(), reason)).collect()
    }

    pub(super) fn allows_program(&self, path: &str) -> bool {
        self.against_path(path).is_none()
    }

    /// As `ADDR/LEN[@DEV]`.
    fn allows_address(&self, address: &str) -> bool {
        let ip = address.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
        ip.is_some_and(|ip| self.allows_ip(ip))
    }

    fn allows_ip(&self, ip: IpAddr) -> bool {
        match &self.addresses {
            None => self.users.is_none(),
            Some(networks) => networks.iter().any(|network| network.contains(&ip)),
        }
    }

    fn against_path(&self, path: &str) -> Option<String> {
        let prefixes = self.executables.as_ref()?;
        let allowed = prefixes.iter().any(|prefix| Path::new(path).starts_with(prefix))
            && !Path::new(path).components().any(|part| part.as_os_str() == "..");
        (!allowed).then(|| "lies where the destination's policy allows none".to_owned())
    }
}

/// A thread whose image does not say who it is would stay what the agent is.
fn everything(pid: i32, tid: i32) -> Privileges {
    Privileges { pid, tid, users: vec![0], groups: vec![0], capabilities: u64::MAX >> 23 }
}

pub(super) fn beyond(held: &[u32], allowed: Option<&BTreeSet<u32>>) -> Option<u32> {
    let allowed = allowed?;
    held.iter().copied().find(|id| !allowed.contains(id))
}

pub(super) fn refusal(object: String, reason: String) -> Refusal {
    Refusal::new(object, reason, ADVICE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::image::{MemoryFields, ProcessImage, ProcessLayout, ThreadImage};
    use engine::network::namespace::{CableImage, LinkImage, LinkKind};

    fn lines(refusals: &[Refusal]) -> String {
        refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn strict() -> Rules {
        Rules {
            users: Some(BTreeSet::from([1000])),
            groups: Some(BTreeSet::from([1000])),
            executables: Some(vec!["/usr/bin".into()]),
            capabilities: 1 << 10,
            memory_bytes_max: 1 << 20,
            processes_max: 1,
            threads_max: 2,
            ..Rules::default()
        }
    }

    fn held(tid: i32) -> Privileges {
        Privileges { pid: 7, tid, users: vec![1000], groups: vec![1000], capabilities: 1 << 10 }
    }

    #[test]
    fn every_bound_is_refused_by_name_and_all_at_once() {
        let process = |pid| ProcessLayout { pid, tids: vec![pid, pid + 1], ..Default::default() };
        let layout = Layout { processes: vec![process(7), process(17)], ..Layout::default() };
        let inventory = Inventory {
            layout: Some(layout),
            memory_bytes: 2 << 20,
            executables: vec!["/usr/bin/perl".into(), "/usr/binx/perl".into()],
            privileges: vec![
                held(7),
                Privileges { users: vec![1000, 0], ..held(8) },
                Privileges { groups: vec![6], capabilities: 1 << 21, ..held(9) },
            ],
            ..Inventory::default()
        };
        let refusals = strict().against_inventory(&inventory).unwrap();
        let text = lines(&refusals);
        for part in [
            "the tree has 2 processes, and the destination's policy allows 1",
            "the tree has 4 threads, and the destination's policy allows 2",
            "thread 8 of process 7 runs as user 0",
            "thread 9 of process 7 is in group 6",
            "thread 9 of process 7 may have CAP_SYS_ADMIN",
            "the executable /usr/binx/perl lies where",
            "the tree has 2 MiB of memory, and the destination's policy allows 1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(refusals.len(), 7, "{text}");
        assert_eq!(Rules::default().against_inventory(&inventory).unwrap(), []);
        let little = strict().against_memory((1 << 20) + 1).unwrap().to_string();
        assert!(
            little.contains("has 2 MiB of memory, and the destination's policy allows 1"),
            "{little}"
        );
    }

    #[test]
    fn an_address_comes_only_from_a_network_that_is_allowed() {
        let layout =
            |address: &str| Layout { addresses: vec![address.to_owned()], ..Layout::default() };
        let inside = Some(vec!["192.0.2.0/25".parse().unwrap(), "2001:db8::/64".parse().unwrap()]);
        let rules = Rules { addresses: inside, ..Rules::default() };
        for (address, is_allowed) in [
            ("192.0.2.127/24@eth0", true),
            ("192.0.2.128/24", false),
            ("2001:db8::1/64", true),
            ("2001:db9::1/64", false),
            ("hosta/24", false),
        ] {
            assert_eq!(rules.against_layout(&layout(address)).is_empty(), is_allowed, "{address}");
        }
        assert_eq!(Rules::default().against_layout(&layout("192.0.2.1/24")), []);
        let said = lines(&strict().against_layout(&layout("192.0.2.1/24")));
        assert!(said.starts_with("the address 192.0.2.1/24 may not come here"), "{said}");
    }

    #[test]
    fn an_image_that_does_not_say_who_a_thread_is_asks_for_root() {
        let thread = ThreadImage { tid: 7, ..ThreadImage::default() };
        let process = ProcessImage { pid: 7, threads: vec![thread], ..ProcessImage::default() };
        let image = TreeImage { processes: vec![process], ..TreeImage::default() };
        let refusal = strict().against_image(&image).unwrap().unwrap();
        assert!(refusal.to_string().starts_with("process 7 runs as user 0"), "{refusal}");
        assert_eq!(Rules::default().against_image(&image).unwrap(), None);
    }

    #[test]
    fn a_path_is_not_led_out_of_its_prefix() {
        let memory = |executable: &str| MemoryFields {
            executable: executable.to_owned(),
            ..MemoryFields::default()
        };
        let rules = Rules { executables: Some(vec!["/usr/bin".into()]), ..Rules::default() };
        let refused = |path| {
            let memory = Some(memory(path));
            let process = ProcessImage { pid: 7, memory, ..ProcessImage::default() };
            let image = TreeImage { processes: vec![process], ..TreeImage::default() };
            rules.against_image(&image).unwrap().is_some()
        };
        assert!(refused("/usr/bin/../../tmp/x") && refused("/tmp/x") && refused(""));
        assert!(!refused("/usr/bin/perl"));
    }

    #[test]
    fn a_network_namespace_is_plugged_into_no_other_bridge_than_those_that_are_allowed() {
        let mut network = NamespaceImage::default();
        let cable = CableImage { bridge: "br0".to_owned(), ..CableImage::default() };
        let (name, kind) = ("eth0".to_owned(), Some(LinkKind::Cable(cable)));
        network.links.push(LinkImage { name, kind, ..LinkImage::default() });
        let layout = Layout { network: Some(network), ..Layout::default() };
        let said = |rules: &Rules| lines(&rules.against_layout(&layout));
        let only = |bridge: &str| Some(BTreeSet::from([bridge.to_owned()]));
        assert_eq!(said(&Rules::default()), "");
        assert_eq!(said(&Rules { bridges: only("br0"), ..strict() }), "");
        for rules in [strict(), Rules { bridges: only("br1"), ..Rules::default() }] {
            let said = said(&rules);
            assert!(said.contains("(eth0) to the bridge br0 may not come here"), "{said}");
        }
    }
}
