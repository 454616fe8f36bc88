//! The page that the guests share with their loader: it is the host's memory at the same address.

use crate::{
    Width,
    arch::{self, MAILBOX},
};

/// The number of the hypervisor's sabotage, or zero.
const SABOTAGE: usize = MAILBOX;

/// Whether the sweeps are complete.
const WHOLE: usize = MAILBOX + 4;

/// Whether the first VM has ended.
#[cfg(target_arch = "aarch64")]
const ENDED: usize = MAILBOX + 8;

/// A write to this address selects the fault of the sabotaged hypervisor: `../../sabotage`. No device is there.
const SABOTEUR: usize = 0x7f00_0000;

/// Enables the hypervisor's fault that the mailbox names, if any.
pub(crate) fn sabotage() {
    let number = arch::read(SABOTAGE, Width::Dword);
    if number != 0 {
        arch::write(SABOTEUR, Width::Dword, number);
    }
}

pub(crate) fn is_whole() -> bool {
    arch::read(WHOLE, Width::Dword) != 0
}

/// Signals the second VM to begin.
#[cfg(target_arch = "aarch64")]
pub(crate) fn end() {
    arch::write(ENDED, Width::Dword, 1);
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn wait_for_end() {
    while arch::read(ENDED, Width::Dword) == 0 {}
}
