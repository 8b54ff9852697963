//! One line of `/proc/PID/maps`: a range of addresses and what is behind it.

use super::vm_flags::VmFlags;
use crate::error::{Error, Object, OnObject as _};
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Protection {
    /// The PROT_* bits of mmap(2).
    pub fn bits(self) -> i32 {
        let bit = |is: bool, bit: i32| if is { bit } else { 0 };
        bit(self.read, libc::PROT_READ)
            | bit(self.write, libc::PROT_WRITE)
            | bit(self.execute, libc::PROT_EXEC)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub protection: Protection,
    pub shared: bool,
    /// Of `start` in the file, in bytes.
    pub offset: u64,
    /// As `st_dev`; 0 when there is no file.
    pub device: u64,
    /// As `st_ino`; 0 when there is no file, but also of the first segment of System V.
    pub inode: u64,
    /// A path, a name in brackets, or nothing; ` (deleted)` is still at its end. Line feeds are
    /// unescaped. A file whose name really has the four characters `\012` in it cannot be told
    /// from one with a line feed: the kernel escapes nothing else.
    pub path: Vec<u8>,
    pub flags: VmFlags,
}

impl Mapping {
    pub fn object(&self, pid: i32) -> Object {
        Object::Mapping { pid, start: self.start, end: self.end }
    }

    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    pub fn pages(&self) -> u64 {
        self.bytes() / super::PAGE_BYTES
    }

    /// The kernel's own pages, which every process has: nothing in them is the program's.
    pub fn is_special(&self) -> bool {
        let names: [&[u8]; 5] =
            [b"[vdso]", b"[vvar]", b"[vvar_vclock]", b"[vsyscall]", b"[uprobes]"];
        names.contains(&self.path.as_slice())
    }

    /// Whether pages in it can belong to the process alone: anonymous memory, and the copies it
    /// made of a file's pages by writing.
    pub fn holds_private_pages(&self) -> bool {
        !self.shared && !self.is_special()
    }

    pub(crate) fn is_private_file(&self) -> bool {
        self.holds_private_pages() && self.has_file()
    }

    pub fn has_file(&self) -> bool {
        (self.device, self.inode) != (0, 0)
    }

    /// Follows to the very file that is mapped, under whatever name, or none.
    pub fn link(&self, pid: i32) -> String {
        format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end)
    }

    /// Whether `next` could be one mapping with this one, if the program made their protections
    /// equal. Flags that are not known disturb nothing. A file's constants and its data stay
    /// apart, by the account that only the data is on.
    fn may_merge_with(&self, next: &Self) -> bool {
        let protection = VmFlags::READ.and(VmFlags::WRITE).and(VmFlags::EXECUTE);
        let account = if self.has_file() { VmFlags::NONE } else { VmFlags::ACCOUNTED };
        let passing = protection.and(VmFlags::WATCHED).and(account);
        let key = |m: &Self| (m.shared, m.device, m.inode);
        let flags = [self.flags, next.flags];
        let [one, other] = flags.map(|flags| flags.without(passing));
        self.end == next.start
            && key(self) == key(next)
            && self.path == next.path
            && (!self.has_file() || self.offset + self.bytes() == next.offset)
            && (one == other || flags.contains(&VmFlags::NONE))
    }

    /// The same memory seen later, possibly longer, shorter or split.
    fn continues(&self, earlier: &Self) -> bool {
        let meets = self.start < earlier.end && earlier.start < self.end;
        let key = |m: &Self| (m.shared, m.device, m.inode, m.protection);
        meets && key(self) == key(earlier) && self.path == earlier.path
    }
}

/// All mappings with their flags. smaps visits every page (13 ms a resident GiB), so not for
/// use while the process stands still.
pub fn read(pid: i32) -> Result<Vec<Mapping>, Error> {
    let mut mappings = read_lines(pid)?;
    let flags = read_flags(pid)?;
    for mapping in &mut mappings {
        mapping.flags = flags.get(&mapping.start).copied().unwrap_or_default();
    }
    Ok(mappings)
}

/// All mappings as they are now, at half a microsecond each. Flags are taken from an earlier look.
/// The second value counts the mappings that were not known then: these have no flags yet.
pub fn refresh(pid: i32, earlier: &[Mapping]) -> Result<(Vec<Mapping>, usize), Error> {
    let mut mappings = read_lines(pid)?;
    let mut unknown = 0;
    for mapping in &mut mappings {
        let there = between(earlier, mapping.start, mapping.end);
        let known = |old: &&Mapping| old.flags != VmFlags::NONE || old.is_special();
        match there.iter().filter(known).find(|old| mapping.continues(old)) {
            Some(old) => mapping.flags = old.flags,
            None => unknown += 1,
        }
    }
    Ok((mappings, unknown))
}

/// Those that have a part in `start..end`; `mappings` rise, as the kernel lists them.
pub(crate) fn between(mappings: &[Mapping], start: u64, end: u64) -> &[Mapping] {
    let first = mappings.partition_point(|mapping| mapping.end <= start);
    let count = mappings[first..].partition_point(|mapping| mapping.start < end);
    &mappings[first..first + count]
}

/// Those around `one` of them that may become one mapping with it, and itself.
pub(super) fn mergeable<'a>(mappings: &'a [Mapping], one: &Mapping) -> &'a [Mapping] {
    let index = mappings.partition_point(|mapping| mapping.end <= one.start);
    let links = |first: usize| mappings[first].may_merge_with(&mappings[first + 1]);
    let start = (0..index).rev().take_while(|&first| links(first)).last().unwrap_or(index);
    let end = (index..mappings.len() - 1).take_while(|&first| links(first)).last();
    &mappings[start..=end.map_or(index, |first| first + 1)]
}

pub(super) fn read_lines(pid: i32) -> Result<Vec<Mapping>, Error> {
    let text = fs::read(format!("/proc/{pid}/maps"))
        .on("read the mappings of", || Object::Process { pid })?;
    let mappings = parse(&text).ok_or_else(|| {
        Error::invalid("read the mappings of", Object::Process { pid }, "a line makes no sense")
    })?;
    Ok(without_overlaps(mappings))
}

/// The kernel writes the file a few pages at a time. While the process runs, a mapping can grow,
/// move or merge in between and be listed again: the rest of the code counts on an order.
fn without_overlaps(mappings: Vec<Mapping>) -> Vec<Mapping> {
    let mut end = 0;
    let cut = mappings.into_iter().filter_map(|mut mapping| {
        let listed_already = end.max(mapping.start) - mapping.start;
        mapping.start += listed_already;
        mapping.offset += if mapping.has_file() { listed_already } else { 0 };
        end = end.max(mapping.end);
        (mapping.start < mapping.end).then_some(mapping)
    });
    cut.collect()
}

fn read_flags(pid: i32) -> Result<HashMap<u64, VmFlags>, Error> {
    let text = fs::read(format!("/proc/{pid}/smaps"))
        .on("read the mapping flags of", || Object::Process { pid })?;
    Ok(parse_smaps(&text).into_iter().map(|seen| (seen.start, seen.flags)).collect())
}

/// The text of a `maps` file; `None` when a line is malformed.
pub fn parse(text: &[u8]) -> Option<Vec<Mapping>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (start, end) = word()?.split_once('-')?;
    let permissions = word()?.as_bytes();
    let offset = word()?;
    let (major, minor) = word()?.split_once(':')?;
    let inode = word()?.parse().ok()?;
    let (start, end) = (hex(start)?, hex(end)?);
    let [read, write, execute, shared] = permissions else { return None };
    (start < end).then_some(Mapping {
        start,
        end,
        protection: Protection {
            read: *read == b'r',
            write: *write == b'w',
            execute: *execute == b'x',
        },
        shared: *shared == b's',
        offset: hex(offset)?,
        device: nix::sys::stat::makedev(hex(major)?, hex(minor)?),
        inode,
        path: unescape(words.next().unwrap_or_default().trim_ascii_start()),
        flags: VmFlags::NONE,
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn unescape(path: &[u8]) -> Vec<u8> {
    let mut rest = path;
    let mut plain = Vec::with_capacity(path.len());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(br"\012");
        plain.push(if escaped.is_some() { b'\n' } else { byte });
        rest = escaped.unwrap_or(after);
    }
    plain
}

/// What smaps adds to a line of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SmapsEntry {
    pub(crate) start: u64,
    pub(crate) flags: VmFlags,
    /// Nothing of it is in memory or in swap.
    pub(crate) is_untouched: bool,
}

/// The text of a `smaps` file. Lines that are not understood are passed over: each kernel adds some.
pub(crate) fn parse_smaps(text: &[u8]) -> Vec<SmapsEntry> {
    let mut entries: Vec<SmapsEntry> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((name, value)) = smaps_field(line) else {
            let start = parse_line(line).map(|mapping| mapping.start);
            let new = |start| SmapsEntry { start, flags: VmFlags::NONE, is_untouched: true };
            entries.extend(start.map(new));
            continue;
        };
        let Some(entry) = entries.last_mut() else { continue };
        match name {
            "VmFlags" => entry.flags = VmFlags::parse(value),
            "Rss" | "Swap" => entry.is_untouched &= value.trim() == "0 kB",
            _ => {}
        }
    }
    entries
}

/// `Name:   value`; the name of a field begins with a capital, an address does not.
fn smaps_field(line: &[u8]) -> Option<(&str, &str)> {
    line.first().filter(|byte| byte.is_ascii_uppercase())?;
    std::str::from_utf8(line).ok()?.split_once(':')
}

/// A path that the kernel showed, without what it adds for a file that was unlinked.
pub(crate) fn without_deleted(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.strip_suffix(b" (deleted)").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(line: &str) -> Mapping {
        let mut mappings = parse(line.as_bytes()).expect("a good line");
        assert_eq!(mappings.len(), 1);
        mappings.remove(0)
    }

    #[test]
    fn a_library_is_read_whole() {
        let text = "7f5ee4dbf000-7f5ee4f15000 r-xp 00026000 fe:00 326279                     /usr/lib/libc.so.6\n";
        let expected = Mapping {
            start: 0x7f5e_e4db_f000,
            end: 0x7f5e_e4f1_5000,
            protection: Protection { read: true, write: false, execute: true },
            shared: false,
            offset: 0x26000,
            device: nix::sys::stat::makedev(0xfe, 0),
            inode: 326_279,
            path: b"/usr/lib/libc.so.6".to_vec(),
            flags: VmFlags::NONE,
        };
        assert_eq!(only(text), expected);
    }

    #[test]
    fn names_come_out_as_the_kernel_wrote_them() {
        for (shown, path) in [
            ("", ""),
            ("                          [heap]", "[heap]"),
            ("   [vvar_vclock]", "[vvar_vclock]"),
            ("   [anon:my pool]", "[anon:my pool]"),
            ("   /memfd:a b (deleted)", "/memfd:a b (deleted)"),
            ("   /SYSV0000abcd (deleted)", "/SYSV0000abcd (deleted)"),
            ("   anon_inode:[io_uring]", "anon_inode:[io_uring]"),
            (r"   /tmp/two\012lines", "/tmp/two\nlines"),
            (r"   /tmp/back\slash", r"/tmp/back\slash"),
        ] {
            let mapping = only(&format!("1000-2000 rw-s 00000000 00:01 7{shown}\n"));
            assert_eq!(mapping.path, path.as_bytes(), "{shown}");
            assert!(mapping.shared && mapping.protection.write);
        }
    }

    #[test]
    fn a_malformed_line_is_refused() {
        for line in
            ["x", "1000 rw-p 0 0:0 0", "2000-1000 rw-p 0 0:0 0", "1-2 rw 0 0:0 0", "1-2 rw-p 0 0 0"]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn flags_and_residence_are_found_in_smaps() {
        let text = b"1000-2000 rw-p 00000000 00:00 0          [heap]\nSize:   4 kB\nRss:    0 kB\nSwap:   0 kB\nVmFlags: rd wr gd\n\
            2000-3000 r--p 00000000 00:00 0 \nRss:    4 kB\nVmFlags: rd nr\n";
        let entries = parse_smaps(text);
        assert_eq!(
            entries[0],
            SmapsEntry { start: 0x1000, flags: VmFlags::parse("rd wr gd"), is_untouched: true }
        );
        assert_eq!(
            entries[1],
            SmapsEntry { start: 0x2000, flags: VmFlags::parse("rd nr"), is_untouched: false }
        );
    }

    #[test]
    fn a_mapping_that_is_listed_twice_is_cut() {
        let text = b"1000-5000 r--p 00000000 fe:00 7 /a\n3000-8000 r--p 00002000 fe:00 7 /a\n\
            4000-6000 rw-p 00000000 00:00 0 \n8000-9000 rw-p 00000000 00:00 0 \n";
        let cut = without_overlaps(parse(text).unwrap());
        let ranges: Vec<_> = cut.iter().map(|m| (m.start, m.end, m.offset)).collect();
        assert_eq!(ranges, [(0x1000, 0x5000, 0), (0x5000, 0x8000, 0x4000), (0x8000, 0x9000, 0)]);
    }

    #[test]
    fn what_mprotect_split_belongs_together() {
        let text = b"1000-2000 rw-p 00000000 00:00 0 \n2000-3000 r--p 00000000 00:00 0 \n\
            3000-4000 rw-p 00000000 00:00 0 \n5000-6000 rw-p 00000000 00:00 0 \n\
            6000-7000 r--p 00001000 fe:00 7 /a\n7000-8000 rw-p 00002000 fe:00 7 /a\n\
            8000-9000 rw-p 00004000 fe:00 7 /a\n";
        let mut mappings = parse(text).unwrap();
        let starts = |mappings: &[Mapping], index| {
            mergeable(mappings, &mappings[index])
                .iter()
                .map(|mapping| mapping.start)
                .collect::<Vec<_>>()
        };
        for index in 0..3 {
            assert_eq!(starts(&mappings, index), [0x1000, 0x2000, 0x3000], "from {index}");
        }
        assert_eq!(starts(&mappings, 3), [0x5000], "a hole before it, a file behind");
        assert_eq!(starts(&mappings, 4), [0x6000, 0x7000]);
        assert_eq!(starts(&mappings, 6), [0x8000], "another place in the file");
        mappings[0].flags = VmFlags::parse("rd wr mr mw me ac uw");
        mappings[1].flags = VmFlags::parse("rd mr mw me");
        mappings[2].flags = VmFlags::parse("rd wr mr mw me ac nh");
        assert_eq!(starts(&mappings, 0), [0x1000, 0x2000]);
    }

    #[test]
    fn our_own_mappings_are_all_understood() {
        let pid = std::process::id().cast_signed();
        let mappings = read(pid).unwrap();
        assert!(
            mappings.iter().all(|mapping| mapping.is_special() || mapping.flags != VmFlags::NONE)
        );
        let stack = mappings.iter().find(|mapping| mapping.path == b"[stack]").unwrap();
        assert!(stack.flags.has(VmFlags::GROWS_DOWN) && stack.holds_private_pages());
    }

    #[test]
    fn a_later_look_keeps_the_flags_and_counts_what_is_new() {
        let pid = std::process::id().cast_signed();
        let mut earlier = read(pid).unwrap();
        earlier.retain(|mapping| mapping.path != b"[stack]");
        let (now, unknown) = refresh(pid, &earlier).unwrap();
        assert!(unknown >= 1, "the stack was taken away");
        let text = |m: &&Mapping| m.protection.execute && m.has_file();
        assert_eq!(now.iter().find(text).unwrap().flags, earlier.iter().find(text).unwrap().flags);
    }
}
