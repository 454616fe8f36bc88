//! Accesses to addresses that no device owns.

use crate::{
    Width,
    arch::{self, HOLE},
    say,
    second::together,
};

/// The number of rounds in which two vCPUs make them at once.
const ROUNDS: usize = 1000;

/// Makes the accesses with each width.
pub(crate) fn read_and_write() {
    for width in Width::ALL {
        arch::write(HOLE, width, 1);
        say!("no device: read {:#x}", arch::read(HOLE, width));
    }
}

pub(crate) fn two() {
    let wrong = together(|_| {
        let wrong = |_: &usize| {
            arch::write(HOLE, Width::Dword, 1);
            arch::read(HOLE, Width::Dword) != Width::Dword.mask()
        };
        (0..ROUNDS).filter(wrong).count()
    });
    say!("no device: two vCPUs, {ROUNDS} reads and writes each, {wrong} wrong");
}
