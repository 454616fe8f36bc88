//! The port device through which guests report their checks, and get orders.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use crossbeam_utils::CachePadded;
use guest::contract::{
    CHECKS, FIRST_ADDRESS, FIRST_EXPECTED, FIRST_GOT, HALT, MAILBOX, MAILBOX_BANK, MISSES, MOVE,
    RINGS, WRONG,
};

use super::Doorbells;
use crate::{Finding, Host};

/// The length of one sleep of a vCPU that is stuck asleep, in nanoseconds.
const NAP: u64 = 1_000_000;

/// A mailbox for each vCPU. All counts are `Relaxed`: their final values are read when the vCPUs have ended.
pub struct Mailbox {
    banks: Box<[CachePadded<Bank>]>,
    stop: AtomicBool,
    /// Whether the first vCPUs do not return, and how the second one then waits.
    sticks: Option<Host>,
    doorbells: Arc<dyn Doorbells>,
}

#[derive(Default)]
struct Bank {
    checks: AtomicU64,
    misses: AtomicU64,
    wrong: AtomicU64,
    rounds: AtomicU64,
    first: [AtomicU32; 3],
    /// Whether the guest must move its device.
    to_move: AtomicBool,
}

impl Mailbox {
    /// A mailbox for each vCPU. If it `sticks`, vCPU 0 stays inside, busy, and vCPU 1 stays inside, asleep, until the
    /// guests are ordered to halt.
    pub(crate) fn new(vcpus: u32, sticks: Option<Host>, doorbells: Arc<dyn Doorbells>) -> Self {
        Self {
            banks: (0..vcpus).map(|_| CachePadded::default()).collect(),
            stop: AtomicBool::new(false),
            sticks,
            doorbells,
        }
    }

    /// Orders all guests to halt.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the guests are ordered to halt.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Orders the guest of `vcpu` to move its device.
    pub(crate) fn order_move(&self, vcpu: usize) {
        self.banks[vcpu].to_move.store(true, Ordering::Relaxed);
    }

    fn orders(&self, bank: &Bank) -> u32 {
        let halt = if self.stopped() { HALT } else { 0 };
        // Only this vCPU takes the order, so it is taken once.
        if bank.to_move.load(Ordering::Relaxed) {
            bank.to_move.store(false, Ordering::Relaxed);
            return halt | MOVE;
        }
        halt
    }

    /// Keeps vCPU 0 busy and vCPU 1 asleep until the guests must halt.
    #[cold]
    fn stick(&self, vcpu: usize, host: Host) {
        while vcpu < 2 && !self.stopped() {
            match vcpu {
                0 => core::hint::spin_loop(),
                _ => (host.pause)(NAP),
            }
        }
    }

    fn bank(&self, port: Port) -> (&Bank, u16) {
        let offset = port.0 - MAILBOX;
        (
            &self.banks[usize::from(offset / MAILBOX_BANK)],
            offset % MAILBOX_BANK,
        )
    }

    /// The number of values that `vcpu` checked.
    pub fn checks(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].checks.load(Ordering::Relaxed)
    }

    /// The number of rounds that `vcpu` has ended: in each it reads its orders once.
    pub fn rounds(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].rounds.load(Ordering::Relaxed)
    }

    /// The number of accesses of `vcpu` that no device owned.
    pub fn misses(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].misses.load(Ordering::Relaxed)
    }

    /// The number of values that `vcpu` found wrong.
    pub fn wrong(&self, vcpu: usize) -> u64 {
        self.banks[vcpu].wrong.load(Ordering::Relaxed)
    }

    /// The first wrong value.
    pub fn first_wrong(&self, vcpu: usize) -> Option<Finding> {
        let first = &self.banks[vcpu].first;
        let [address, got, expected] = [0, 1, 2].map(|i: usize| first[i].load(Ordering::Relaxed));
        (self.wrong(vcpu) > 0).then_some(Finding {
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
        bank.rounds.fetch_add(1, Ordering::Relaxed);
        if let Some(host) = self.sticks {
            self.stick(usize::from((port.0 - MAILBOX) / MAILBOX_BANK), host);
        }
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
            RINGS => {
                let vcpu = (port.0 - MAILBOX) / MAILBOX_BANK;
                self.doorbells.written(vcpu.into(), val as u64);
            }
            FIRST_ADDRESS => note(0),
            FIRST_GOT => note(1),
            FIRST_EXPECTED => note(2),
            _ => {}
        }
        Ok(())
    }
}
