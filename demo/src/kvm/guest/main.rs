//! The guest for KVM, a separate program, which `build.rs` compiles. It runs in 64-bit mode without interrupts, and
//! virtual addresses are physical ones.

#![no_std]
#![no_main]

use core::{arch::asm, panic::PanicInfo};

use guest::{At, Guest, Machine, contract::Width};

/// A PC. Each access is one instruction, which causes an exit.
struct Pc;

/// Reads by an instruction that returns the value in `eax`.
macro_rules! read {
    ($instruction:literal, $register:tt, $at:expr) => {{
        let value: u32;
        // SAFETY: the address or the port is a device's, so this accesses no memory of Rust.
        unsafe {
            asm!($instruction, in($register) $at, inout("eax") 0 => value, options(nostack, preserves_flags));
        }
        value
    }};
}

/// Writes `eax` by an instruction.
macro_rules! write {
    ($instruction:literal, $register:tt, $at:expr, $value:expr) => {
        // SAFETY: as in `read`.
        unsafe {
            asm!($instruction, in($register) $at, in("eax") $value, options(nostack, preserves_flags));
        }
    };
}

/// Repeats an instruction of string I/O for `items` items of a slice, which starts at the pointer.
macro_rules! repeat {
    ($instruction:literal, $register:tt, $pointer:expr, $port:expr, $items:expr) => {
        // SAFETY: accesses only the items of the slice, which belongs to the caller.
        unsafe {
            asm!($instruction, in("dx") $port, inout($register) $pointer => _, inout("rcx") $items => _,
                options(nostack, preserves_flags));
        }
    };
}

impl Machine for Pc {
    const IS_PC: bool = true;

    fn read(&mut self, at: At, width: Width) -> u32 {
        match (at, width) {
            (At::Mmio(at), Width::Byte) => read!("mov al, [rdi]", "rdi", u64::from(at)),
            (At::Mmio(at), Width::Word) => read!("mov ax, [rdi]", "rdi", u64::from(at)),
            (At::Mmio(at), Width::Dword) => read!("mov eax, [rdi]", "rdi", u64::from(at)),
            (At::Port(at), Width::Byte) => read!("in al, dx", "dx", at),
            (At::Port(at), Width::Word) => read!("in ax, dx", "dx", at),
            (At::Port(at), Width::Dword) => read!("in eax, dx", "dx", at),
        }
    }

    fn write(&mut self, at: At, width: Width, value: u32) {
        match (at, width) {
            (At::Mmio(at), Width::Byte) => write!("mov [rdi], al", "rdi", u64::from(at), value),
            (At::Mmio(at), Width::Word) => write!("mov [rdi], ax", "rdi", u64::from(at), value),
            (At::Mmio(at), Width::Dword) => write!("mov [rdi], eax", "rdi", u64::from(at), value),
            (At::Port(at), Width::Byte) => write!("out dx, al", "dx", at, value),
            (At::Port(at), Width::Word) => write!("out dx, ax", "dx", at, value),
            (At::Port(at), Width::Dword) => write!("out dx, eax", "dx", at, value),
        }
    }

    fn write_string(&mut self, port: u16, width: Width, bytes: &[u8]) {
        let (from, items) = (bytes.as_ptr(), bytes.len() / width as usize);
        match width {
            Width::Byte => repeat!("rep outsb", "rsi", from, port, items),
            Width::Word => repeat!("rep outsw", "rsi", from, port, items),
            Width::Dword => repeat!("rep outsd", "rsi", from, port, items),
        }
    }

    fn read_string(&mut self, port: u16, width: Width, bytes: &mut [u8]) {
        let (to, items) = (bytes.as_mut_ptr(), bytes.len() / width as usize);
        match width {
            Width::Byte => repeat!("rep insb", "rdi", to, port, items),
            Width::Word => repeat!("rep insw", "rdi", to, port, items),
            Width::Dword => repeat!("rep insd", "rdi", to, port, items),
        }
    }
}

/// The entry of each vCPU, with its number, on its own stack.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
// SAFETY: the linker script puts this section first.
#[unsafe(link_section = ".text.entry")]
extern "C" fn guest_entry(vcpu: u32) -> ! {
    Guest::new(vcpu, Pc).run();
    loop {
        // SAFETY: the host ends the vCPU that halts.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) }
    }
}

/// Causes an exception. There is no handler, so it ends the vCPU, and the host reports it.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: does not return.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// The compiler generates calls of this function of libc, which is not linked.
///
/// # Safety
///
/// As C's.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller gives `n` bytes at each end.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") n => _,
            options(nostack, preserves_flags));
    }
    to
}

/// As for [`memcpy`].
///
/// # Safety
///
/// As C's.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller gives `n` bytes.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte as u8, inout("rcx") n => _,
            options(nostack, preserves_flags));
    }
    to
}
