//! What rt_sigreturn(2) takes a thread back to: `struct ucontext` and the vector registers behind
//! it, as the kernel itself writes them for a handler (Linux, arch/x86/include/uapi/asm/ucontext.h
//! and sigcontext.h, arch/x86/kernel/fpu/signal.c).

use crate::sys::cpu;
use crate::tracee::Registers;
use std::sync::OnceLock;

/// The processor loads vector registers only from such an address.
pub(crate) const ALIGNMENT: u64 = 64;
const XSTATE_OFFSET: usize = 320;
const ALTERNATE_STACK_MODE_OFFSET: usize = 24;
const SIGCONTEXT_OFFSET: usize = 40;
const FPSTATE_OFFSET: usize = SIGCONTEXT_OFFSET + 184;
const MASK_OFFSET: usize = 296;

/// UC_FP_XSTATE, UC_SIGCONTEXT_SS and UC_STRICT_RESTORE_SS.
const FLAGS: u64 = 7;
/// No such mode: the kernel refuses it without a word, and the alternate stack stays as it is.
const NO_ALTERNATE_STACK_MODE: u64 = 0x7f;

const MAGIC1: u64 = 0x4650_5853;
/// The mark that ends the vector registers.
const MAGIC2: u32 = 0x4650_5845;
const MARK_BYTES: usize = 4;
/// The bytes for software among the vector registers. In those of ptrace(2) the enabled components
/// stand there.
const SOFTWARE_OFFSET: usize = 464;
const IN_USE_OFFSET: usize = 512;
/// Tiles, 8 KiB of them. A thread that never used any has no room for them.
const TILES: u64 = 1 << 18;

#[derive(Debug)]
pub(crate) struct SignalFrame {
    bytes: Vec<u8>,
    /// Where the mark that ends the vector registers stands once more, behind 8 KiB that nobody
    /// reads.
    far_mark: usize,
}

impl SignalFrame {
    /// These registers, this mask, and an `xstate` of ptrace(2). `None` when the vector registers are
    /// not in a form that we know.
    pub(crate) fn new(registers: &Registers, mask: u64, xstate: &[u8]) -> Option<Self> {
        let used = bytes_in_use(xstate)?;
        let mut bytes = vec![0; XSTATE_OFFSET];
        bytes.reserve(used + MARK_BYTES);
        put(&mut bytes, 0, FLAGS);
        put(&mut bytes, ALTERNATE_STACK_MODE_OFFSET, NO_ALTERNATE_STACK_MODE);
        for (index, word) in sigcontext(registers).into_iter().enumerate() {
            put(&mut bytes, SIGCONTEXT_OFFSET + index * 8, word);
        }
        put(&mut bytes, MASK_OFFSET, mask);
        bytes.extend_from_slice(&xstate[..used]);
        put_software_bytes(&mut bytes[XSTATE_OFFSET..], used, word(xstate, SOFTWARE_OFFSET)?);
        bytes.extend_from_slice(&MAGIC2.to_ne_bytes());
        Some(Self { bytes, far_mark: XSTATE_OFFSET + xstate.len() })
    }

    /// Says which bytes go where in a frame at the address `at`.
    pub(crate) fn write(&self, at: u64, mut put: impl FnMut(usize, &[u8])) {
        assert!(at.is_multiple_of(ALIGNMENT), "a signal frame is aligned");
        put(0, &self.bytes);
        put(FPSTATE_OFFSET, &(at + XSTATE_OFFSET as u64).to_ne_bytes());
        put(self.far_mark, &MAGIC2.to_ne_bytes());
    }
}

/// `struct _fpx_sw_bytes`: what tells the kernel that more than the oldest registers follows.
fn put_software_bytes(xstate: &mut [u8], used: usize, features: u64) {
    let size = used as u64;
    xstate[SOFTWARE_OFFSET..IN_USE_OFFSET].fill(0);
    put(xstate, SOFTWARE_OFFSET, MAGIC1 | (size + MARK_BYTES as u64) << 32);
    put(xstate, SOFTWARE_OFFSET + 8, features);
    put(xstate, SOFTWARE_OFFSET + 16, size);
}

/// How many bytes of the vector registers count.
///
/// The kernel looks for the mark where the area *of this thread* ends (older ones, where the frame
/// says that it ends), and ptrace(2) does not tell where that is: behind the tiles if the thread
/// ever used them, before them if not. Without tiles in use the mark can stand in both places.
fn bytes_in_use(xstate: &[u8]) -> Option<usize> {
    static WITHOUT_TILES: OnceLock<usize> = OnceLock::new();
    let features = word(xstate, SOFTWARE_OFFSET)?;
    let in_use = word(xstate, IN_USE_OFFSET)?;
    let whole = xstate.len();
    if features & !in_use & TILES == 0 {
        return Some(whole);
    }
    let without = *WITHOUT_TILES.get_or_init(|| cpu::xsave_bytes(features & !TILES));
    (without <= whole).then_some(without)
}

/// `struct sigcontext` up to its `cr2`, in its order.
fn sigcontext(registers: &Registers) -> [u64; 19] {
    let Registers { r8, r9, r10, r11, r12, r13, r14, r15, .. } = *registers;
    let Registers { rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags, cs, ss, .. } = *registers;
    let segments = cs & 0xffff | (ss & 0xffff) << 48;
    [
        r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags,
        segments,
    ]
}

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ptrace::no_registers;

    /// The processor's own area, with nothing in use but what is always there.
    fn xstate() -> Vec<u8> {
        let cpu = cpu::xsave();
        let mut xstate = vec![0; cpu.size as usize];
        put(&mut xstate, SOFTWARE_OFFSET, cpu.features);
        put(&mut xstate, IN_USE_OFFSET, 3);
        xstate
    }

    #[test]
    fn the_mark_stands_wherever_the_kernel_may_look() {
        let xstate = xstate();
        let mut written = vec![0; XSTATE_OFFSET + xstate.len() + MARK_BYTES];
        let frame = SignalFrame::new(&no_registers(), 0, &xstate).unwrap();
        frame.write(0x1000, |at, bytes| written[at..at + bytes.len()].copy_from_slice(bytes));
        let vectors = &written[XSTATE_OFFSET..];
        let size = usize::try_from(word(vectors, SOFTWARE_OFFSET + 16).unwrap()).unwrap();
        for end in [size, xstate.len()] {
            assert_eq!(vectors[end..end + MARK_BYTES], MAGIC2.to_ne_bytes());
        }
        assert_eq!(word(&written, FPSTATE_OFFSET), Some(0x1000 + XSTATE_OFFSET as u64));
    }

    #[test]
    fn vector_registers_that_are_none_make_no_frame() {
        assert!(SignalFrame::new(&no_registers(), 0, &[0; 100]).is_none());
    }
}
