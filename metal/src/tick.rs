//! The timer interrupt of a CPU: it looks up and dispatches through the registry, which it may have interrupted at any
//! instruction, and checks the values that it reads, as a guest does.
//!
//! It neither allocates nor frees, and takes no lock: the devices that it looks up are never removed, and the devices
//! that it reads have no lock.

use core::sync::atomic::{AtomicU32, Ordering};

use axaddrspace::{GuestPhysAddr, device::AccessWidth};
use crossbeam_utils::CachePadded;

use crate::{
    arch,
    contract::{
        BAYS, BEATS, Belt, FLOATING, MAX_VCPUS, SLOT_BANK, SLOT_STRIDE, SLOTS, id, number_to_show,
        tag,
    },
    cpu::{Cpu, Doing},
    options::Sabotage,
    vm::Vm,
    watchdog,
};

/// The minimum time from one interrupt to the next, in nanoseconds: overall, and for each CPU, because one thread of
/// the host makes the interrupts of all.
const PERIOD: (u64, u64) = (1_000_000, 125_000);

/// From one interrupt to the next, in nanoseconds.
pub(crate) fn period() -> u64 {
    PERIOD.0.max(PERIOD.1 * u64::from(Vm::the().vcpus))
}

/// The values that a CPU's handler has read, for itself (`Relaxed`).
struct Seen {
    beat: AtomicU32,
    /// The numbers in the bays of the full belt.
    bays: [AtomicU32; BAYS as usize],
}

static SEEN: [CachePadded<Seen>; MAX_VCPUS as usize] = [const {
    CachePadded::new(Seen {
        beat: AtomicU32::new(0),
        bays: [const { AtomicU32::new(0) }; BAYS as usize],
    })
}; MAX_VCPUS as usize];

/// Handles the timer interrupt. Interrupts are masked.
pub(crate) fn tick() {
    let cpu = Cpu::current();
    cpu.ticks.add_one();
    if cpu.is_doing(Doing::Dispatch) {
        cpu.ticks_in_dispatch.add_one();
    } else if cpu.is_doing(Doing::Change) {
        cpu.ticks_in_change.add_one();
    }
    cpu.while_doing(Doing::Tick, || {
        let tick = Tick {
            vm: Vm::the(),
            cpu,
            index: arch::cpu_index(),
        };
        tick.beat();
        tick.walk();
        tick.visit();
        if tick.index == 0 {
            watchdog::look(tick.vm);
        }
    });
    cpu.set_ticked();
}

/// An interrupt in progress.
struct Tick {
    vm: &'static Vm,
    cpu: &'static Cpu,
    index: usize,
}

impl Tick {
    /// Reads this CPU's beat, and writes the next one through the device that it looks up.
    fn beat(&self) {
        let seen = &SEEN[self.index].beat;
        let at = BEATS + 4 * self.index as u32;
        let beat = seen.load(Ordering::Relaxed);
        self.check(at, self.read(at), beat);
        let next = beat.wrapping_add(1);
        let value = next + u32::from(self.vm.goes_wrong(Sabotage::Beat) && next == 8);
        let address = GuestPhysAddr::from_usize(at as usize);
        let device = self.vm.devices.find_mmio_dev(address);
        let written =
            device.map(|device| device.handle_write(address, AccessWidth::Dword, value as usize));
        if !matches!(written, Some(Ok(()))) {
            self.cpu.wrong.note(at, FLOATING, next);
        }
        seen.store(next, Ordering::Relaxed);
    }

    /// Reads all bays of the full belt, from the last to the first.
    fn walk(&self) {
        let mut behind = 0;
        for bay in (0..BAYS).rev() {
            let seen = &SEEN[self.index].bays[bay as usize];
            let at = Belt::Full.bay(bay);
            let got = self.read(at);
            let number = number_to_show(got, behind, seen.load(Ordering::Relaxed));
            if self.check(at, got, tag(Belt::Full, number)) {
                behind = number;
                seen.store(number, Ordering::Relaxed);
            }
        }
    }

    /// Reads the id of one of the hot-added devices.
    fn visit(&self) {
        let added = self.vm.arrivals.count();
        if added == 0 {
            return;
        }
        let slot = SEEN[self.index].beat.load(Ordering::Relaxed) % added;
        let at = SLOTS + slot * SLOT_STRIDE + self.index as u32 * SLOT_BANK;
        self.check(at, self.read(at), id(slot));
    }

    fn read(&self, at: u32) -> u32 {
        let address = GuestPhysAddr::from_usize(at as usize);
        let read = self
            .vm
            .devices
            .handle_mmio_read(address, AccessWidth::Dword);
        read.map_or(FLOATING, |value| value as u32)
    }

    /// Counts a check, and returns whether the value is right.
    fn check(&self, at: u32, got: u32, expected: u32) -> bool {
        self.cpu.checks.add_one();
        if got != expected {
            self.cpu.wrong.note(at, got, expected);
        }
        got == expected
    }
}
