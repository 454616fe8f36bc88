//! The port device by which guests report what they checked, and are told what to do.

use alloc::boxed::Box;
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use crossbeam_utils::CachePadded;

use crate::contract::{
    CHECKS, FIRST_ADDRESS, FIRST_EXPECTED, FIRST_GOT, HALT, MAILBOX, MAILBOX_BANK, MISSES, MOVE,
    WRONG,
};

/// A mailbox for each vCPU. All counts are `Relaxed`: they are read for good when the vCPUs'
/// threads have ended.
pub(crate) struct Mailbox {
    banks: Box<[CachePadded<Bank>]>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Bank {
    checks: AtomicU64,
    misses: AtomicU64,
    wrong: AtomicU64,
    first: [AtomicU32; 3],
    /// Whether the guest is to move its device.
    to_move: AtomicBool,
}

/// The first value that a guest found wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstWrong {
    address: u32,
    got: u32,
    expected: u32,
}

impl fmt::Display for FirstWrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bus = if self.address > u16::MAX.into() {
            "MMIO"
        } else {
            "port"
        };
        let Self {
            address,
            got,
            expected,
        } = self;
        write!(
            f,
            "{bus} {address:#x} read as {got:#x}, not as {expected:#x}"
        )
    }
}

impl Mailbox {
    pub(crate) fn new(vcpus: u32) -> Self {
        Self {
            banks: (0..vcpus).map(|_| CachePadded::default()).collect(),
            stop: AtomicBool::new(false),
        }
    }

    /// Tells all guests to halt.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the guests were told to halt.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the guest of `vcpu` to move its device.
    pub(crate) fn order_move(&self, vcpu: usize) {
        self.banks[vcpu].to_move.store(true, Ordering::Relaxed);
    }

    fn orders(&self, bank: &Bank) -> u32 {
        let halt = if self.stopped() { HALT } else { 0 };
        // Only this vCPU takes the order, so that none is taken twice.
        if bank.to_move.load(Ordering::Relaxed) {
            bank.to_move.store(false, Ordering::Relaxed);
            return halt | MOVE;
        }
        halt
    }

    fn bank(&self, port: Port) -> (&Bank, u16) {
        let offset = port.0 - MAILBOX;
        (
            &self.banks[usize::from(offset / MAILBOX_BANK)],
            offset % MAILBOX_BANK,
        )
    }

    /// How many values `vcpu` checked.
    pub(crate) fn checks(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].checks.load(Ordering::Relaxed)
    }

    /// How many accesses of `vcpu` nobody answered.
    pub(crate) fn misses(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].misses.load(Ordering::Relaxed)
    }

    /// How many values `vcpu` found wrong.
    pub(crate) fn wrong(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].wrong.load(Ordering::Relaxed)
    }

    /// The first of them.
    pub(crate) fn first_wrong(&self, vcpu: usize) -> Option<FirstWrong> {
        let first = &self.banks[vcpu].first;
        let [address, got, expected] = [0, 1, 2].map(|i: usize| first[i].load(Ordering::Relaxed));
        (self.wrong(vcpu) > 0).then_some(FirstWrong {
            address,
            got,
            expected,
        })
    }
}

impl BaseDeviceOps<PortRange> for Mailbox {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        let ports = MAILBOX_BANK * self.banks.len() as u16;
        PortRange::new(Port(MAILBOX), Port(MAILBOX + ports - 1))
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        let (bank, _) = self.bank(port);
        Ok(self.orders(bank) as usize)
    }

    fn handle_write(&self, port: Port, _: AccessWidth, val: usize) -> AxResult {
        let (bank, word) = self.bank(port);
        let count = |counter: &AtomicU64| {
            counter.fetch_add(val as u64, Ordering::Relaxed);
        };
        let note = |index: usize| bank.first[index].store(val as u32, Ordering::Relaxed);
        match word {
            CHECKS => count(&bank.checks),
            MISSES => count(&bank.misses),
            WRONG => count(&bank.wrong),
            FIRST_ADDRESS => note(0),
            FIRST_GOT => note(1),
            FIRST_EXPECTED => note(2),
            _ => {}
        }
        Ok(())
    }
}
