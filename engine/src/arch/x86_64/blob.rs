//! The code that a puppet runs: it walks an array of system calls and stops for us at its end.
//!
//! No stack, no data of its own, position-independent. It may be entered with any register
//! contents except `rbx` (the first entry), `rbp` (how many) and `r12` (how it ends).
//!
//! A stub ends in a trap (`r12` is zero): it dies with us anyway. A program must outlive us, and a
//! trap that no tracer takes away kills. It sends itself the signal in `r12`, one that does
//! nothing by default; the kernel stops it for us on its way to that signal. Without us it goes on
//! behind the signal, where it returns to the signal frame at `r13`: to what it was doing.

use crate::tracee::Registers;

/// One system call as the code reads it: number, six arguments, result, and two addresses where
/// the result is stored as well (arguments of later entries, or zero).
pub(crate) const ENTRY_BYTES: usize = 80;
pub(crate) const ARGUMENT_OFFSET: usize = 8;
pub(crate) const RESULT_OFFSET: usize = 56;

/// Where a `syscall` instruction stands in the code, for calls made one at a time.
pub(crate) const SYSCALL_OFFSET: u64 = 0x20;

/// ```text
/// 1: test rbp, rbp          mov r8,  [rbx+40]        mov rcx, [rbx+72]
///    jz 4f                  mov r9,  [rbx+48]        test rcx, rcx
///    mov rax, [rbx]         syscall                  jz 3f
///    mov rdi, [rbx+8]       mov [rbx+56], rax        mov [rcx], rax
///    mov rsi, [rbx+16]      mov rcx, [rbx+64]     3: add rbx, 80
///    mov rdx, [rbx+24]      test rcx, rcx            dec rbp
///    mov r10, [rbx+32]      jz 2f                    jmp 1b
///                           mov [rcx], rax
///                        2:
///
/// 4: test r12, r12       5: mov eax, getpid          mov rdx, r12
///    jnz 5f                 syscall                  mov eax, tgkill
///    int3                   mov edi, eax             syscall
///                           mov eax, gettid       6: mov rsp, r13
///                           syscall                  mov eax, rt_sigreturn
///                           mov esi, eax             syscall
/// ```
pub(crate) const CODE: [u8; 115] = [
    0x48, 0x85, 0xed, 0x74, 0x42, 0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10,
    0x48, 0x8b, 0x53, 0x18, 0x4c, 0x8b, 0x53, 0x20, 0x4c, 0x8b, 0x43, 0x28, 0x4c, 0x8b, 0x4b, 0x30,
    0x0f, 0x05, 0x48, 0x89, 0x43, 0x38, 0x48, 0x8b, 0x4b, 0x40, 0x48, 0x85, 0xc9, 0x74, 0x03, 0x48,
    0x89, 0x01, 0x48, 0x8b, 0x4b, 0x48, 0x48, 0x85, 0xc9, 0x74, 0x03, 0x48, 0x89, 0x01, 0x48, 0x83,
    0xc3, 0x50, 0x48, 0xff, 0xcd, 0xeb, 0xb9, 0x4d, 0x85, 0xe4, 0x75, 0x01, 0xcc, 0xb8, 0x27, 0x00,
    0x00, 0x00, 0x0f, 0x05, 0x89, 0xc7, 0xb8, 0xba, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x89, 0xc6, 0x4c,
    0x89, 0xe2, 0xb8, 0xea, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x4c, 0x89, 0xec, 0xb8, 0x0f, 0x00, 0x00,
    0x00, 0x0f, 0x05,
];

/// Where a stub stands when it has met its trap.
pub(crate) const BEHIND_TRAP_OFFSET: u64 = 77;

/// Where a program stands when it has sent itself the signal (label 6).
pub(crate) const WAY_BACK_OFFSET: u64 = 105;

/// How the walk ends for a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayBack {
    pub(crate) signal: i32,
    /// The address of its signal frame.
    pub(crate) frame: u64,
}

/// The instruction by which a program enters the kernel.
pub(crate) const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Registers that make a stopped thread walk `count` entries.
///
/// `orig_rax` is -1 so that the kernel does not take the stop for an interrupted system call.
pub(crate) fn walking(
    base: &Registers,
    code: u64,
    entries: u64,
    count: u64,
    way_back: Option<WayBack>,
) -> Registers {
    let r12 = way_back.map_or(0, |way_back| u64::from(way_back.signal.unsigned_abs()));
    let r13 = way_back.map_or(0, |way_back| way_back.frame);
    Registers { rip: code, rbx: entries, rbp: count, r12, r13, orig_rax: u64::MAX, ..*base }
}

/// Registers that make one system call at a `syscall` instruction.
pub(crate) fn calling(base: &Registers, at: u64, number: i64, args: [u64; 6]) -> Registers {
    let [rdi, rsi, rdx, r10, r8, r9] = args;
    let rax = number.cast_unsigned();
    Registers { rip: at, rax, rdi, rsi, rdx, r10, r8, r9, orig_rax: u64::MAX, ..*base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syscall_instruction_stands_where_we_say() {
        let at = usize::try_from(SYSCALL_OFFSET).unwrap();
        assert_eq!(CODE[at..at + 2], SYSCALL);
    }

    #[test]
    fn a_stub_ends_behind_the_trap() {
        let at = usize::try_from(BEHIND_TRAP_OFFSET).unwrap();
        assert_eq!(CODE[at - 1], 0xcc);
    }

    #[test]
    fn the_way_back_begins_behind_a_system_call() {
        let at = usize::try_from(WAY_BACK_OFFSET).unwrap();
        assert_eq!(CODE[at - 2..at], SYSCALL);
        assert_eq!(CODE[at..at + 3], [0x4c, 0x89, 0xec]);
    }
}
