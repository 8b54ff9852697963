//! What is moved.

/// A program with much of something.
#[derive(Debug)]
pub struct Load {
    /// For the command line and the JSON.
    pub name: &'static str,
    pub title: &'static str,
    pub(super) program: Program,
    /// How much memory it has, about, in MiB.
    pub(super) mib: u64,
}

#[derive(Debug)]
pub(super) enum Program {
    /// The workload `load` with these arguments.
    Load(&'static [&'static str]),
    /// A redis server with data, and so many clients of it that write.
    Redis { clients: usize },
}

impl Program {
    pub(super) fn is_redis(&self) -> bool {
        matches!(self, Self::Redis { .. })
    }
}

pub const LOADS: &[Load] = &[
    load("idle", "idle C program", 1, &[]),
    load("64-mib", "64 MiB, idle", 64, &["memory=64"]),
    load("1-gib", "1 GiB, idle", 1024, &["memory=1024"]),
    load("4-gib", "4 GiB, idle", 4096, &["memory=4096"]),
    load("hot-set", "1 GiB, 64 MiB of it written without pause", 1024, &["memory=1024", "hot=64"]),
    load("all-hot", "1 GiB, all of it written without pause", 1024, &["memory=1024", "hot=1024"]),
    redis("redis-idle", "redis, 512 MiB, one client", 1),
    redis("redis-load", "redis, 512 MiB, 50 clients write", 50),
    load("threads", "500 threads", 1, &["threads=500"]),
    load("descriptors", "1000 descriptors, mixed", 1, &["descriptors=1000"]),
    load("mappings", "2000 mappings", 9, &["mappings=2000"]),
    load("processes", "100 processes in a tree", 1, &["processes=100"]),
];

/// Of data.
pub(super) const REDIS_MIB: u64 = 512;

const fn load(
    name: &'static str,
    title: &'static str,
    mib: u64,
    arguments: &'static [&'static str],
) -> Load {
    Load { name, title, program: Program::Load(arguments), mib }
}

const fn redis(name: &'static str, title: &'static str, clients: usize) -> Load {
    Load { name, title, program: Program::Redis { clients }, mib: REDIS_MIB }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_load_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = LOADS.iter().map(|load| load.name).collect();
        assert_eq!(names.len(), LOADS.len());
    }
}
