//! The guest: makes accesses, on one vCPU and on two, prints the results, and switches its VM off. `../expected`
//! contains the results.

#![no_std]
#![no_main]

#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64/mod.rs")]
mod arch;
mod console;
mod hammer;
mod hole;
mod mailbox;
mod second;
mod sweep;

use core::panic::PanicInfo;

/// The width of an access.
#[derive(Clone, Copy)]
enum Width {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Width {
    const ALL: [Self; 4] = [Self::Byte, Self::Word, Self::Dword, Self::Qword];

    /// The bits of a value that an access transfers.
    fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
            Self::Qword => u64::MAX,
        }
    }
}

extern "C" fn main() -> ! {
    mailbox::sabotage();
    arch::run();
    off()
}

fn off() -> ! {
    say!("off");
    arch::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    off()
}
