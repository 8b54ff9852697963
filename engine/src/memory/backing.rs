//! What stands behind a mapping, and so how its content comes to the destination.

use super::mapping::{self, Mapping, without_deleted};
use super::vm_flags::VmFlags;
use crate::error::{Error, OnObject as _};
use crate::refusal::Refusal;
use crate::tree;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

/// Private pages (anonymous ones, and written copies of file pages) are carried for the first
/// four alike; this says what lies beneath them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// Nothing: a page that was never written reads as zeros.
    Anonymous,
    /// A file that exists under its name. Its content is not carried: the destination must have it.
    File {
        path: PathBuf,
    },
    /// Memory that lives as long as somebody uses it, or a file nobody else can open any more.
    /// Its content is carried once, by object, however many processes map it.
    Object {
        key: ObjectKey,
        origin: Origin,
    },
    /// The kernel's own page, made by the destination's kernel.
    Special(Special),
    Unmovable(Unmovable),
}

/// `st_dev` and `st_ino`: as fstat(2) says them of a descriptor of the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub device: u64,
    pub inode: u64,
}

/// How a memory object came to be, and so how an equal one is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// mmap(MAP_SHARED | MAP_ANONYMOUS)
    SharedAnonymous,
    Memfd {
        name: Vec<u8>,
    },
    /// shmget(2)
    SystemV {
        key: u32,
        id: u64,
    },
    /// A file on a tmpfs that still has its name: shm_open(3).
    Tmpfs {
        path: PathBuf,
    },
    /// Any file that was unlinked, a library that was upgraded for instance. The destination
    /// maps a nameless copy.
    Deleted {
        path: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Vdso,
    Vvar,
    VvarVclock,
    Vsyscall,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmovable {
    pub reason: String,
    pub advice: String,
}

/// Of each mapping in turn. One that has gone since it was read is taken out.
pub fn kinds(pid: i32, mappings: &mut Vec<Mapping>) -> Result<Vec<MappingKind>, Error> {
    let mut known = HashMap::new();
    let mut kinds = Vec::with_capacity(mappings.len());
    let mut present = Vec::with_capacity(mappings.len());
    for mapping in mappings.drain(..) {
        if let Some(kind) = kind(pid, &mapping, &mut known)? {
            kinds.push(kind);
            present.push(mapping);
        }
    }
    *mappings = present;
    Ok(kinds)
}

/// Everything that cannot be moved, not only the first.
pub fn examine(pid: i32, mappings: &[Mapping], kinds: &[MappingKind]) -> Vec<Refusal> {
    let all = mappings.iter().zip(kinds);
    all.filter_map(|(mapping, kind)| refusal(pid, mapping, kind)).collect()
}

fn refusal(pid: i32, mapping: &Mapping, kind: &MappingKind) -> Option<Refusal> {
    let MappingKind::Unmovable(Unmovable { reason, advice }) = kind.clone() else { return None };
    Some(Refusal { object: mapping.object(pid), reason, advice })
}

/// What only the file system can say about a mapped file.
#[derive(Clone, Debug)]
struct FileFacts {
    key: ObjectKey,
    is_device: bool,
    is_on_tmpfs: bool,
    /// The path in maps leads to this very file.
    has_its_name: bool,
}

type Known = HashMap<(u64, u64, Vec<u8>), FileFacts>;

fn kind(pid: i32, mapping: &Mapping, known: &mut Known) -> Result<Option<MappingKind>, Error> {
    if let Some(kind) = kind_by_name(mapping) {
        return Ok(Some(kind));
    }
    let name = (mapping.device, mapping.inode, mapping.path.clone());
    let facts = match known.get(&name) {
        Some(facts) => facts,
        None => match look(pid, mapping)? {
            Some(facts) => known.entry(name).or_insert(facts),
            None => return Ok(None),
        },
    };
    Ok(Some(kind_of_file(mapping, facts)))
}

/// What can be told from the line alone.
fn kind_by_name(mapping: &Mapping) -> Option<MappingKind> {
    let special = match mapping.path.as_slice() {
        b"[vdso]" => Some(Special::Vdso),
        b"[vvar]" => Some(Special::Vvar),
        b"[vvar_vclock]" => Some(Special::VvarVclock),
        b"[vsyscall]" => Some(Special::Vsyscall),
        _ => None,
    };
    let anonymous = !mapping.has_file() || (!mapping.shared && mapping.path == b"/dev/zero");
    special
        .map(MappingKind::Special)
        .or_else(|| unmovable_by_name(mapping).map(MappingKind::Unmovable))
        .or_else(|| anonymous.then_some(MappingKind::Anonymous))
}

/// Name, what it is, what can be done. The kernel's side of each is a thing that a copy of the
/// bytes does not make.
const KERNEL_BUFFERS: [(&[u8], &str, &str); 6] = [
    (b"[uprobes]", "has user-space probes in it", "Remove the probes first."),
    (b"anon_inode:[io_uring]", "is an io_uring", "Run the program without io_uring."),
    (b"/[aio]", "is a ring of asynchronous I/O", "Run the program without libaio."),
    (b"anon_inode:[perf_event]", "is a perf ring", "Stop the profiler first."),
    (
        b"/secretmem",
        "is memory that nobody else may read (memfd_secret)",
        "Run the program without secret memory.",
    ),
    (b"socket:[", "is the ring of a packet socket", "Stop the packet capture first."),
];

fn unmovable_by_name(mapping: &Mapping) -> Option<Unmovable> {
    let unmovable = |reason: &str, advice: &str| {
        Some(Unmovable { reason: reason.to_owned(), advice: advice.to_owned() })
    };
    let path = mapping.path.as_slice();
    if let Some((_, reason, advice)) =
        KERNEL_BUFFERS.iter().find(|(name, ..)| path.starts_with(name))
    {
        return unmovable(reason, advice);
    }
    if mapping.flags.has(VmFlags::HUGE_TLB) || path.starts_with(b"/anon_hugepage") {
        return unmovable(
            "is on huge pages of hugetlbfs",
            "Run the program with transparent huge pages.",
        );
    }
    if mapping.flags.has(VmFlags::SHADOW_STACK) {
        return unmovable(
            "is a shadow stack",
            "Run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off.",
        );
    }
    if path.starts_with(b"anon_inode:") {
        let what = format!("belongs to {}", String::from_utf8_lossy(path));
        return unmovable(&what, "Close it in the program first.");
    }
    None
}

fn kind_of_file(mapping: &Mapping, facts: &FileFacts) -> MappingKind {
    let is_device_memory = |flags| mapping.flags.has(flags);
    if facts.is_device
        || is_device_memory(VmFlags::PAGE_FRAMES)
        || is_device_memory(VmFlags::DEVICE_IO)
    {
        return MappingKind::Unmovable(Unmovable {
            reason: format!("maps the device {}", String::from_utf8_lossy(&mapping.path)),
            advice: "Close the device in the program first.".to_owned(),
        });
    }
    // The pages of a named tmpfs file exist in memory only, and a program that maps them shared
    // means them as memory. One that maps them privately runs a program from /tmp.
    if facts.has_its_name && !(facts.is_on_tmpfs && mapping.shared) {
        return MappingKind::File { path: PathBuf::from(OsStr::from_bytes(&mapping.path)) };
    }
    let path = without_deleted(&mapping.path).to_path_buf();
    MappingKind::Object { key: facts.key, origin: origin(mapping, facts, path) }
}

fn origin(mapping: &Mapping, facts: &FileFacts, path: PathBuf) -> Origin {
    let shown = path.to_string_lossy().into_owned();
    if facts.has_its_name {
        return Origin::Tmpfs { path };
    }
    if shown == "/dev/zero" || shown.starts_with("[anon_shmem") {
        return Origin::SharedAnonymous;
    }
    if let Some(name) = mapping.path.strip_prefix(b"/memfd:") {
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        return Origin::Memfd { name: name.to_vec() };
    }
    match shown.strip_prefix("/SYSV").map(|key| u32::from_str_radix(key, 16)) {
        Some(Ok(key)) => Origin::SystemV { key, id: mapping.inode },
        _ => Origin::Deleted { path },
    }
}

/// How often a mapping may be split, moved or merged while its file is looked at.
const LOOKS_MAX: usize = 8;

/// `None` when nothing of the file is mapped any more: the process runs, and may have unmapped it,
/// or only made one mapping of two.
fn look(pid: i32, mapping: &Mapping) -> Result<Option<FileFacts>, Error> {
    let mut mapping = mapping.clone();
    for _ in 1..LOOKS_MAX {
        match look_at(pid, &mapping) {
            Err(error) if error.is_gone() => match of_the_same_file(pid, &mapping)? {
                Some(other) => mapping = other,
                None if tree::is_alive(pid) => return Ok(None),
                None => return Err(error),
            },
            looked => return looked.map(Some),
        }
    }
    look_at(pid, &mapping).map(Some)
}

fn of_the_same_file(pid: i32, mapping: &Mapping) -> Result<Option<Mapping>, Error> {
    let key = |mapping: &Mapping| (mapping.device, mapping.inode, mapping.path.clone());
    let wanted = key(mapping);
    Ok(mapping::read_lines(pid)?.into_iter().find(|other| key(other) == wanted))
}

fn look_at(pid: i32, mapping: &Mapping) -> Result<FileFacts, Error> {
    let link = mapping.link(pid);
    let file = fs::metadata(&link).on("look at the file behind", || mapping.object(pid))?;
    let is_on_tmpfs =
        statfs(link.as_str()).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
    let kind = file.file_type();
    Ok(FileFacts {
        key: ObjectKey { device: file.dev(), inode: file.ino() },
        is_device: kind.is_char_device() || kind.is_block_device(),
        is_on_tmpfs,
        has_its_name: has_its_name(pid, mapping, &file),
    })
}

/// The path is as the process sees it, so it is looked up beneath the process's own root. A file
/// may be called "x (deleted)" and exist: only the inode tells.
fn has_its_name(pid: i32, mapping: &Mapping, file: &Metadata) -> bool {
    if file.nlink() == 0 || !mapping.path.starts_with(b"/") {
        return false;
    }
    let path = OsStr::from_bytes(&mapping.path[1..]);
    let path = PathBuf::from(format!("/proc/{pid}/root")).join(path);
    fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::mapping::parse;
    use super::*;

    fn named(path: &str, permissions: &str) -> Mapping {
        let line = format!("1000-2000 {permissions} 00000000 00:01 77     {path}\n");
        parse(line.as_bytes()).unwrap().remove(0)
    }

    fn facts(has_its_name: bool, is_on_tmpfs: bool) -> FileFacts {
        let key = ObjectKey { device: 1, inode: 77 };
        FileFacts { key, is_device: false, is_on_tmpfs, has_its_name }
    }

    fn origin_of(path: &str) -> Origin {
        match kind_of_file(&named(path, "rw-s"), &facts(false, true)) {
            MappingKind::Object { origin, .. } => origin,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn memory_objects_are_told_apart_by_their_names() {
        assert_eq!(origin_of("/dev/zero (deleted)"), Origin::SharedAnonymous);
        assert_eq!(origin_of("[anon_shmem:pool]"), Origin::SharedAnonymous);
        assert_eq!(origin_of("/memfd:a b (deleted)"), Origin::Memfd { name: b"a b".to_vec() });
        assert_eq!(origin_of("/SYSV0000abcd (deleted)"), Origin::SystemV { key: 0xabcd, id: 77 });
        assert_eq!(origin_of("/lib/x.so (deleted)"), Origin::Deleted { path: "/lib/x.so".into() });
    }

    #[test]
    fn a_named_file_keeps_its_whole_name() {
        let kind = kind_of_file(&named("/tmp/x", "r--p"), &facts(true, false));
        assert_eq!(kind, MappingKind::File { path: "/tmp/x".into() });
    }

    #[test]
    fn shared_tmpfs_files_are_memory_and_private_ones_are_files() {
        let shared = kind_of_file(&named("/dev/shm/pool", "rw-s"), &facts(true, true));
        assert!(matches!(shared, MappingKind::Object { origin: Origin::Tmpfs { .. }, .. }));
        let private = kind_of_file(&named("/tmp/program", "r-xp"), &facts(true, true));
        assert!(matches!(private, MappingKind::File { .. }));
    }

    #[test]
    fn what_is_half_in_the_kernel_is_refused_by_name() {
        for path in
            ["anon_inode:[io_uring]", "/[aio] (deleted)", "anon_inode:kvm-vcpu:0", "socket:[12]"]
        {
            let kind = kind_by_name(&named(path, "rw-s"));
            assert!(matches!(kind, Some(MappingKind::Unmovable(_))), "{path}");
        }
    }

    #[test]
    fn the_first_segment_of_system_v_has_number_0_and_is_a_file_all_the_same() {
        let line = b"1000-2000 rw-s 00000000 00:01 0     /SYSV00000000 (deleted)\n";
        assert_eq!(kind_by_name(&parse(line).unwrap()[0]), None);
        let line = b"1000-2000 rw-p 00000000 00:00 0 \n";
        assert_eq!(kind_by_name(&parse(line).unwrap()[0]), Some(MappingKind::Anonymous));
    }

    /// Another mapping of the same file tells as much; when there is none, it is gone.
    #[test]
    fn a_mapping_that_was_split_meanwhile_is_still_found_and_one_that_is_gone_is_left_out() {
        let pid = std::process::id().cast_signed();
        let now = mapping::read(pid).unwrap();
        let is_file = |mapping: &&Mapping| mapping.has_file() && mapping.path.starts_with(b"/");
        let there = now.iter().find(is_file).unwrap().clone();
        let was_longer = Mapping { start: there.start - 4096, ..there.clone() };
        let gone =
            Mapping { inode: there.inode + 1, path: b"/gone".to_vec(), ..was_longer.clone() };
        let mut mappings = vec![gone, was_longer.clone()];
        let found = kinds(pid, &mut mappings).unwrap();
        assert_eq!(mappings, [was_longer]);
        assert!(matches!(&found[..], [MappingKind::File { .. }]), "{found:?}");
    }

    #[test]
    fn our_own_mappings_are_all_movable() {
        let pid = std::process::id().cast_signed();
        let mut mappings = mapping::read(pid).unwrap();
        let kinds = kinds(pid, &mut mappings).unwrap();
        assert_eq!(kinds.len(), mappings.len());
        assert_eq!(examine(pid, &mappings, &kinds), []);
        assert!(kinds.contains(&MappingKind::Special(Special::Vdso)));
        assert!(kinds.iter().any(|kind| matches!(kind, MappingKind::File { .. })));
    }
}
