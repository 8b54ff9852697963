//! The vdso of another kernel: its functions, and how calls into it are led to ours.
//!
//! A program keeps the addresses of its vdso's functions. Where the destination's kernel was
//! built differently they stand elsewhere, so the source's code stays in place as ordinary
//! memory, and the first instructions of each function become a jump to the destination's. A
//! function that the destination lacks becomes the system call that it stands for.

use std::collections::BTreeMap;
use std::ops::Range;

const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const SYMBOL_BYTES: u64 = 24;
const STT_FUNC: u8 = 2;

/// A function of a vdso: its offset in the image and its length, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Bytes to be written at an offset of the source's vdso.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) offset: u64,
    pub(crate) code: Vec<u8>,
}

/// `e_shoff`, `e_shentsize` and `e_shnum` of elf(5).
const SECTIONS: Range<usize> = 40..48;
const SECTION_BYTES: Range<usize> = 58..60;
const SECTION_COUNT: Range<usize> = 60..62;

/// How long the image is: its section headers are the last of it. Behind them is nothing of it.
pub(crate) fn length(image: &[u8]) -> Option<u64> {
    let word = |range: Range<usize>| {
        let bytes = image.get(range)?.iter().rev();
        Some(bytes.fold(0, |word, byte| word << 8 | u64::from(*byte)))
    };
    let sections = word(SECTION_BYTES)? * word(SECTION_COUNT)?;
    image.starts_with(b"\x7fELF").then(|| word(SECTIONS)?.checked_add(sections))?
}

/// Whether these are images of the same kernel, whatever lies behind them.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let end = length(other).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(other.len());
    one.len() == other.len() && one.get(..end) == other.get(..end)
}

/// The system call that does what a function of the vdso does, arguments included.
fn system_call(function: &str) -> Option<i64> {
    Some(match function.strip_prefix("__vdso_").unwrap_or(function) {
        "clock_gettime" => libc::SYS_clock_gettime,
        "clock_getres" => libc::SYS_clock_getres,
        "gettimeofday" => libc::SYS_gettimeofday,
        "time" => libc::SYS_time,
        "getcpu" => libc::SYS_getcpu,
        // Its last two arguments are for the vdso's own state, which the kernel does not need.
        "getrandom" => libc::SYS_getrandom,
        _ => return None,
    })
}

/// What to write into the source's vdso so that its functions do their work in the destination's
/// image, which lies at `destination_at`. `Err` names a function that nothing stands in for.
pub(crate) fn redirect(
    source: &[u8],
    destination: &[u8],
    destination_at: u64,
) -> Result<Vec<Patch>, String> {
    let theirs = functions(source).ok_or("its vdso cannot be read")?;
    let ours = functions(destination).ok_or("this host's vdso cannot be read")?;
    let mut patches: BTreeMap<u64, Patch> = BTreeMap::new();
    for (name, function) in &theirs {
        let code = match (ours.get(name), system_call(name)) {
            (Some(there), _) => jump(destination_at.wrapping_add(there.offset)),
            (None, Some(number)) => call(number),
            // Intel SGX enclaves: nobody can enter one without the hardware device, and that is
            // refused as a mapping.
            (None, None) if name.contains("sgx") => continue,
            (None, None) => return Err(format!("nothing stands in for {name} of its vdso")),
        };
        if function.length < code.len() as u64 {
            return Err(format!("{name} of its vdso is too short to be led elsewhere"));
        }
        patches.insert(function.offset, Patch { offset: function.offset, code });
    }
    Ok(patches.into_values().collect())
}

/// `movabs rax, address; jmp rax`: a function's first argument registers stay as they are.
fn jump(address: u64) -> Vec<u8> {
    let mut code = vec![0x48, 0xb8];
    code.extend_from_slice(&address.to_le_bytes());
    code.extend_from_slice(&[0xff, 0xe0]);
    code
}

/// `mov eax, number; mov r10, rcx; syscall; ret`.
fn call(number: i64) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend_from_slice(&i32::try_from(number).unwrap_or(-1).to_le_bytes());
    code.extend_from_slice(&[0x49, 0x89, 0xca, 0x0f, 0x05, 0xc3]);
    code
}

/// The exported functions of a vdso image by name; `None` when it is not one.
pub(crate) fn functions(image: &[u8]) -> Option<BTreeMap<String, Function>> {
    let dynamic = dynamic_entries(image)?;
    let symbols = *dynamic.get(&DT_SYMTAB)?;
    let strings = *dynamic.get(&DT_STRTAB)?;
    // The linker puts the strings right behind the symbols; that bounds their number.
    let count = strings.checked_sub(symbols)? / SYMBOL_BYTES;
    let mut found = BTreeMap::new();
    for index in 1..count.min(1024) {
        let at = symbols.checked_add(index * SYMBOL_BYTES)?;
        let end = at.checked_add(SYMBOL_BYTES)?;
        let kind = byte(image, end - 20)? & 0xf;
        let (offset, length) = (word(image, end - 16)?, word(image, end - 8)?);
        if kind == STT_FUNC && offset != 0 {
            let name = text(image, strings.checked_add(half(image, at)?.into())?)?;
            found.insert(name, Function { offset, length });
        }
    }
    Some(found)
}

fn dynamic_entries(image: &[u8]) -> Option<BTreeMap<u64, u64>> {
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = word(image, 32)?;
    let count = u64::from(u16::from_le_bytes([byte(image, 56)?, byte(image, 57)?]));
    let dynamic = (0..count)
        .map_while(|index| headers.checked_add(index * 56))
        .find(|&at| half(image, at) == Some(PT_DYNAMIC))?;
    let field = |at: u64| word(image, dynamic.checked_add(at)?);
    let (offset, length) = (field(8)?, field(32)?);
    let mut entries = BTreeMap::new();
    for at in (offset..offset.checked_add(length.min(4096))?).step_by(16) {
        entries.insert(word(image, at)?, word(image, at.checked_add(8)?)?);
    }
    Some(entries)
}

fn byte(image: &[u8], at: u64) -> Option<u8> {
    image.get(usize::try_from(at).ok()?).copied()
}

fn half(image: &[u8], at: u64) -> Option<u32> {
    let at = usize::try_from(at).ok()?;
    Some(u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn word(image: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    Some(u64::from_le_bytes(image.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn text(image: &[u8], at: u64) -> Option<String> {
    let rest = image.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().take(128).position(|&byte| byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn our_vdso() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        let mut image = vec![0; usize::try_from(end - start).unwrap()];
        std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, start).unwrap();
        image
    }

    #[test]
    fn our_own_functions_are_found() {
        let functions = functions(&our_vdso()).unwrap();
        assert!(functions.contains_key("__vdso_clock_gettime"), "{functions:?}");
        assert!(functions.values().all(|function| function.length > 0));
    }

    #[test]
    fn every_function_is_led_to_its_namesake() {
        let vdso = our_vdso();
        let functions = functions(&vdso).unwrap();
        let patches = redirect(&vdso, &vdso, 0x7000_0000_0000).unwrap();
        let time = functions["__vdso_clock_gettime"];
        let patch = patches.iter().find(|patch| patch.offset == time.offset).unwrap();
        assert_eq!(patch.code[2..10], (0x7000_0000_0000 + time.offset).to_le_bytes());
    }

    #[test]
    fn bytes_that_are_no_vdso_are_refused() {
        assert_eq!(functions(b"\x7fELF\x02\x01"), None);
        let mut vdso = our_vdso();
        vdso.truncate(200);
        assert_eq!(functions(&vdso), None);
        assert!(redirect(&vdso, &our_vdso(), 0).is_err());
    }
}
