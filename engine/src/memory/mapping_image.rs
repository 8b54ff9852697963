//! A mapping as it travels: everything the destination needs to make an equal one.

use super::backing::{MappingKind, Origin, Special};
use super::file_identity::FileIdentity;
use super::mapping::Mapping;
use super::vm_flags::VmFlags;
use std::os::unix::ffi::OsStrExt as _;

#[derive(Clone, PartialEq, prost::Message)]
pub struct MappingImage {
    #[prost(uint64, tag = "1")]
    pub start: u64,
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// PROT_* bits now.
    #[prost(int32, tag = "3")]
    pub protection: i32,
    /// PROT_* bits that it had or could get: map with `accounted` and PROT_WRITE, then protect,
    /// or neighbours merge that did not here.
    #[prost(int32, tag = "4")]
    pub protection_max: i32,
    #[prost(bool, tag = "5")]
    pub shared: bool,
    /// In the file or object, bytes.
    #[prost(uint64, tag = "6")]
    pub offset: u64,
    /// The name that prctl(PR_SET_VMA_ANON_NAME) gave; empty for none.
    #[prost(bytes = "vec", tag = "7")]
    pub name: Vec<u8>,
    #[prost(message, optional, tag = "8")]
    pub advice: Option<AdviceImage>,
    #[prost(oneof = "BackingImage", tags = "16, 17, 18, 19")]
    pub backing: Option<BackingImage>,
}

/// What mmap(2), madvise(2), mlock(2) and mseal(2) were told about it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AdviceImage {
    #[prost(bool, tag = "1")]
    pub grows_down: bool,
    #[prost(bool, tag = "2")]
    pub no_reserve: bool,
    #[prost(bool, tag = "3")]
    pub accounted: bool,
    #[prost(bool, tag = "4")]
    pub locked: bool,
    #[prost(bool, tag = "5")]
    pub locked_on_fault: bool,
    #[prost(bool, tag = "6")]
    pub huge_pages: bool,
    #[prost(bool, tag = "7")]
    pub no_huge_pages: bool,
    #[prost(bool, tag = "8")]
    pub dont_fork: bool,
    #[prost(bool, tag = "9")]
    pub wipe_on_fork: bool,
    #[prost(bool, tag = "10")]
    pub dont_dump: bool,
    #[prost(bool, tag = "11")]
    pub sequential_read: bool,
    #[prost(bool, tag = "12")]
    pub random_read: bool,
    #[prost(bool, tag = "13")]
    pub mergeable: bool,
    #[prost(bool, tag = "14")]
    pub droppable: bool,
    #[prost(bool, tag = "15")]
    pub sealed: bool,
    /// Has guard pages, which `guards::runs` lists.
    #[prost(bool, tag = "16")]
    pub guards: bool,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum BackingImage {
    #[prost(message, tag = "16")]
    Anonymous(AnonymousImage),
    #[prost(message, tag = "17")]
    File(FileImage),
    #[prost(message, tag = "18")]
    Object(ObjectReference),
    #[prost(enumeration = "SpecialImage", tag = "19")]
    Special(i32),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct AnonymousImage {
    /// The initial stack, the brk heap: what PR_SET_MM_MAP will name.
    #[prost(bool, tag = "1")]
    pub is_heap: bool,
    #[prost(bool, tag = "2")]
    pub is_stack: bool,
    /// A private mapping of /dev/zero: anonymous memory that keeps the device's name.
    #[prost(bool, tag = "3")]
    pub is_dev_zero: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FileImage {
    /// As the process sees it.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub identity: FileIdentity,
    /// It was, or could become, writable and shared: its descriptor was open for writing.
    #[prost(bool, tag = "3")]
    pub is_opened_for_writing: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ObjectReference {
    /// The space its content travels in.
    #[prost(uint32, tag = "1")]
    pub space: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SpecialImage {
    Unknown = 0,
    Vdso = 1,
    Vvar = 2,
    VvarVclock = 3,
    Vsyscall = 4,
}

/// A shared memory object as it travels.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectImage {
    #[prost(uint32, tag = "1")]
    pub space: u32,
    /// Bytes; at the freeze.
    #[prost(uint64, tag = "2")]
    pub size: u64,
    #[prost(oneof = "OriginImage", tags = "16, 17, 18, 19, 20")]
    pub origin: Option<OriginImage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OriginImage {
    #[prost(bool, tag = "16")]
    SharedAnonymous(bool),
    #[prost(bytes, tag = "17")]
    MemfdName(Vec<u8>),
    #[prost(message, tag = "18")]
    SystemV(SystemVImage),
    #[prost(bytes, tag = "19")]
    TmpfsPath(Vec<u8>),
    #[prost(bytes, tag = "20")]
    DeletedPath(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SystemVImage {
    #[prost(uint32, tag = "1")]
    pub key: u32,
    #[prost(uint64, tag = "2")]
    pub id: u64,
}

impl MappingImage {
    pub fn of(mapping: &Mapping, backing: BackingImage) -> Self {
        Self {
            start: mapping.start,
            end: mapping.end,
            protection: mapping.protection.bits(),
            protection_max: protection_max(mapping.flags),
            shared: mapping.shared,
            offset: mapping.offset,
            name: given_name(&mapping.path),
            advice: Some(AdviceImage::of(mapping.flags)),
            backing: Some(backing),
        }
    }
}

impl BackingImage {
    /// Of a kind that needs nothing looked up: `None` for files and objects, whose identity or
    /// space only the caller knows, and for what cannot be moved.
    pub fn plain(mapping: &Mapping, kind: &MappingKind) -> Option<Self> {
        match kind {
            MappingKind::Anonymous => Some(Self::Anonymous(AnonymousImage {
                is_heap: mapping.path == b"[heap]",
                is_stack: mapping.path == b"[stack]",
                is_dev_zero: mapping.path == b"/dev/zero",
            })),
            MappingKind::Special(special) => {
                Some(Self::Special(SpecialImage::from(*special).into()))
            }
            MappingKind::File { .. } | MappingKind::Object { .. } | MappingKind::Unmovable(_) => {
                None
            }
        }
    }

    pub fn file(mapping: &Mapping, identity: FileIdentity) -> Self {
        let is_opened_for_writing = mapping.shared && mapping.flags.has(VmFlags::MAY_WRITE);
        Self::File(FileImage { path: mapping.path.clone(), identity, is_opened_for_writing })
    }

    pub fn object(space: u32) -> Self {
        Self::Object(ObjectReference { space })
    }
}

impl AdviceImage {
    fn of(flags: VmFlags) -> Self {
        Self {
            grows_down: flags.has(VmFlags::GROWS_DOWN),
            no_reserve: flags.has(VmFlags::NO_RESERVE),
            accounted: flags.has(VmFlags::ACCOUNTED),
            locked: flags.has(VmFlags::LOCKED),
            locked_on_fault: flags.has(VmFlags::LOCKED_ON_FAULT),
            huge_pages: flags.has(VmFlags::HUGE_PAGES),
            no_huge_pages: flags.has(VmFlags::NO_HUGE_PAGES),
            dont_fork: flags.has(VmFlags::DONT_FORK),
            wipe_on_fork: flags.has(VmFlags::WIPE_ON_FORK),
            dont_dump: flags.has(VmFlags::DONT_DUMP),
            sequential_read: flags.has(VmFlags::SEQUENTIAL_READ),
            random_read: flags.has(VmFlags::RANDOM_READ),
            mergeable: flags.has(VmFlags::MERGEABLE),
            droppable: flags.has(VmFlags::DROPPABLE),
            sealed: flags.has(VmFlags::SEALED),
            guards: flags.has(VmFlags::GUARDS),
        }
    }
}

impl From<Special> for SpecialImage {
    fn from(special: Special) -> Self {
        match special {
            Special::Vdso => Self::Vdso,
            Special::Vvar => Self::Vvar,
            Special::VvarVclock => Self::VvarVclock,
            Special::Vsyscall => Self::Vsyscall,
        }
    }
}

impl From<&Origin> for OriginImage {
    fn from(origin: &Origin) -> Self {
        let bytes = |path: &std::path::Path| path.as_os_str().as_bytes().to_vec();
        match origin {
            Origin::SharedAnonymous => Self::SharedAnonymous(true),
            Origin::Memfd { name } => Self::MemfdName(name.clone()),
            Origin::SystemV { key, id } => Self::SystemV(SystemVImage { key: *key, id: *id }),
            Origin::Tmpfs { path } => Self::TmpfsPath(bytes(path)),
            Origin::Deleted { path } => Self::DeletedPath(bytes(path)),
        }
    }
}

fn protection_max(flags: VmFlags) -> i32 {
    let bit = |flag, bit: i32| if flags.has(flag) { bit } else { 0 };
    bit(VmFlags::MAY_READ, libc::PROT_READ)
        | bit(VmFlags::MAY_WRITE, libc::PROT_WRITE)
        | bit(VmFlags::MAY_EXECUTE, libc::PROT_EXEC)
}

fn given_name(path: &[u8]) -> Vec<u8> {
    let inner = |prefix: &[u8]| path.strip_prefix(prefix)?.strip_suffix(b"]");
    inner(b"[anon:").or_else(|| inner(b"[anon_shmem:")).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::mapping::parse;
    use super::*;
    use prost::Message as _;

    fn stack() -> Mapping {
        let line =
            b"7ffd2d6e1000-7ffd2d702000 rw-p 00000000 00:00 0                          [stack]\n";
        let mut mapping = parse(line).unwrap().remove(0);
        mapping.flags = VmFlags::parse("rd wr mr mw me gd ac");
        mapping
    }

    #[test]
    fn a_stack_comes_back_with_everything_that_makes_it_one() {
        let mapping = stack();
        let backing = BackingImage::plain(&mapping, &MappingKind::Anonymous).unwrap();
        let image = MappingImage::of(&mapping, backing);
        let back = MappingImage::decode(image.encode_to_vec().as_slice()).unwrap();
        assert_eq!(back, image);
        assert!(back.advice.unwrap().grows_down && back.advice.unwrap().accounted);
        assert_eq!((back.protection, back.protection_max), (3, 7));
    }

    /// Tags and types are for ever: an old image must be read by a new program.
    #[test]
    fn the_bytes_on_the_wire_are_pinned() {
        let image = MappingImage {
            start: 1,
            end: 2,
            protection: 3,
            protection_max: 4,
            shared: true,
            offset: 5,
            name: b"n".to_vec(),
            advice: Some(AdviceImage { grows_down: true, ..AdviceImage::default() }),
            backing: Some(BackingImage::object(6)),
        };
        let golden =
            [8, 1, 16, 2, 24, 3, 32, 4, 40, 1, 48, 5, 58, 1, b'n', 66, 2, 8, 1, 146, 1, 2, 8, 6];
        assert_eq!(image.encode_to_vec(), golden);
    }

    #[test]
    fn a_name_that_the_program_gave_is_kept() {
        assert_eq!(given_name(b"[anon:my [odd] pool]"), b"my [odd] pool");
        assert_eq!(given_name(b"[anon_shmem:x]"), b"x");
        assert_eq!(given_name(b"[heap]"), b"");
    }
}
