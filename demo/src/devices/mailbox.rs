//! The port device by which guests report what they checked, and are told to halt.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use crossbeam_utils::CachePadded;

use crate::contract::{
    CHECKS, FIRST_ADDRESS, FIRST_EXPECTED, FIRST_GOT, MAILBOX, MAILBOX_BANK, MISSES, WRONG,
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

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(self.stopped().into())
    }

    fn handle_write(&self, port: Port, _: AccessWidth, val: usize) -> AxResult {
        let offset = port.0 - MAILBOX;
        let bank = &self.banks[usize::from(offset / MAILBOX_BANK)];
        let count = |counter: &AtomicU64| {
            counter.fetch_add(val as u64, Ordering::Relaxed);
        };
        let note = |word: usize| bank.first[word].store(val as u32, Ordering::Relaxed);
        match offset % MAILBOX_BANK {
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
