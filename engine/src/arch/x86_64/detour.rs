//! The code of a detour: a program makes one system call for us, and goes on with what it was
//! doing if we are dead by then.
//!
//! It needs no stack and no memory but its own, and does not touch what no call of ours changes:
//! the flags, the vector registers and the registers that calls preserve.

use crate::tracee::Registers;

/// SIG_SETMASK of rt_sigprocmask(2), and the bytes of the kernel's mask.
const SET_MASK: u32 = 2;
const MASK_BYTES: u32 = 8;

pub(crate) const BYTES: usize = 144;

/// A way back to these registers and this mask.
///
/// ```text
///    syscall                    ; ours: it stops for us at its end
///    mov eax, rt_sigprocmask    mov edi, SIG_SETMASK    lea rsi, [rip + mask]
///    mov edx, 0                 mov r10d, 8             syscall
///    movabs rax, …  rdi  rsi  rdx  r10  r8  r9  rcx  r11
///    jmp [rip]
///    .quad rip, mask
/// ```
pub(crate) fn code(registers: &Registers, mask: u64) -> [u8; BYTES] {
    let Registers { rip, rax, rdi, rsi, rdx, r10, r8, r9, rcx, r11, .. } = *registers;
    let mut code = Vec::with_capacity(BYTES);
    let number = u32::try_from(libc::SYS_rt_sigprocmask).expect("a small number");
    code.extend([0x0f, 0x05]);
    code.extend(move_small(&[0xb8], number));
    code.extend(move_small(&[0xbf], SET_MASK));
    let lea = code.len() + 7;
    code.extend([0x48, 0x8d, 0x35]);
    code.extend(u32::try_from(BYTES - 8 - lea).expect("it is near").to_ne_bytes());
    code.extend(move_small(&[0xba], 0));
    code.extend(move_small(&[0x41, 0xba], MASK_BYTES));
    code.extend([0x0f, 0x05]);
    let words = [
        ([0x48, 0xb8], rax),
        ([0x48, 0xbf], rdi),
        ([0x48, 0xbe], rsi),
        ([0x48, 0xba], rdx),
        ([0x49, 0xba], r10),
        ([0x49, 0xb8], r8),
        ([0x49, 0xb9], r9),
        ([0x48, 0xb9], rcx),
        ([0x49, 0xbb], r11),
    ];
    for (opcode, word) in words {
        code.extend(opcode);
        code.extend(word.to_ne_bytes());
    }
    code.extend([0xff, 0x25, 0, 0, 0, 0]);
    code.extend(rip.to_ne_bytes());
    code.extend(mask.to_ne_bytes());
    code.try_into().expect("it has this many bytes")
}

fn move_small(opcode: &[u8], value: u32) -> Vec<u8> {
    [opcode, &value.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::blob;
    use crate::sys::ptrace::no_registers;

    #[test]
    fn it_begins_with_our_call_and_ends_with_where_to_go() {
        let registers = Registers { rip: 0x1234, ..no_registers() };
        let code = code(&registers, 0x5678);
        assert_eq!(code[..2], blob::SYSCALL);
        assert_eq!(code[BYTES - 16..BYTES - 8], 0x1234_u64.to_ne_bytes());
        assert_eq!(code[BYTES - 8..], 0x5678_u64.to_ne_bytes());
    }
}
