//! The hierarchy of control groups, version 2: cgroups(7).

use std::fs;
use std::path::PathBuf;

/// Where the whole of it is mounted, if it is.
pub fn root() -> Option<PathBuf> {
    mounted(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// From proc_pid_mountinfo(5). In a hybrid layout it is beside the version 1 hierarchies.
fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_beside_the_first() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mounted("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(mounted("32 31 0:29 /part /cgroup rw - cgroup2 cgroup2 rw\n"), None);
    }
}
