//! The first VM: its interrupts are emulated, its timer is the hypervisor's.

use core::arch::asm;

use super::{DISTRIBUTOR, read, write};
use crate::{Width::Dword, hole, say, sweep::sweep};

/// The length of a GICv2 distributor's device, which repeats its 4 KiB.
const LENGTH: usize = 0x1_0000;

pub(super) fn run() {
    timer();
    distributor();
}

fn timer() {
    msr!("CNTP_CTL_EL0", 1_u64);
    say!("CNTP_CTL_EL0, after 1 = {:#x}", mrs!("CNTP_CTL_EL0"));
    let first = mrs!("CNTPCT_EL0");
    say!("CNTPCT_EL0 goes on: {}", mrs!("CNTPCT_EL0") > first);
    msr!("CNTP_CVAL_EL0", 1_u64);
    say!(
        "CNTP_CVAL_EL0, which has no device = {:#x}",
        mrs!("CNTP_CVAL_EL0")
    );
    hole::read_and_write();
}

fn distributor() {
    write(DISTRIBUTOR, Dword, 1);
    say!("GICv2 CTLR, after 1 = {:#x}", read(DISTRIBUTOR, Dword));
    let count = sweep(DISTRIBUTOR, LENGTH, &[0..0x1000, 0xf000..LENGTH], |_| {
        u64::MAX
    });
    say!("GICv2: sweep, {count} accesses");
}
