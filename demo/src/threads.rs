//! vCPUs without KVM: a thread each, which makes the accesses that the guest in `kvm/guest.rs`
//! makes, in the same order, and checks what that checks.

mod bars;
mod belts;
mod doorbells;
mod shapes;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use axaddrspace::{GuestPhysAddr, device::Port};
use axdevice::{Dispatcher, SharedVmDevices};

use self::doorbells::StandIn;
use crate::{
    arrivals::Arrivals,
    contract::*,
    profiles::Profiles,
    vcpus::Vcpus,
    vm::{Exits, Vm},
};

/// Starts the vCPUs of `vm`.
pub(crate) fn start(vm: &Arc<Vm>) -> Result<Vcpus> {
    let console = Arc::new(AtomicBool::new(false));
    let bells = Arc::new(StandIn::new(vm.vcpus()));
    vm.connect_doorbells(bells.clone())?;
    let mut vcpus = Vcpus::new(vm.clone(), |_| {});
    for vcpu in 0..vm.vcpus() {
        let (vm, console, bells) = (vm.clone(), console.clone(), bells.clone());
        vcpus.push(vcpu, move || {
            let mut guest = Guest::new(vcpu, &vm, &console, &bells);
            guest.run(&vm.profiles);
            vm.profiles
                .tell(vcpu as usize, guest.devices.take_profile());
            Ok(())
        })?;
    }
    Ok(vcpus)
}

/// A guest: what the other one has in its memory and registers.
struct Guest<'vm> {
    vcpu: u32,
    devices: Dispatcher<&'vm SharedVmDevices>,
    exits: &'vm Exits,
    arrivals: &'vm Arrivals,
    /// Taken by the guest that prints.
    console: &'vm AtomicBool,
    bells: &'vm StandIn,
    /// The first slot that was not seen populated.
    next: u32,
    /// The slot to visit again.
    again: u32,
    /// The number of the card seen last on the belt that is looked at.
    behind: u32,
    /// The numbers seen in the bays of all belts.
    seen: [u32; BELTS.len() * BAYS as usize],
    /// Where this vCPU's own device is.
    place: u32,
    rounds: u32,
    checks: u32,
    misses: u32,
    wrong: u32,
    rings: u32,
    told: bool,
}

/// A register on either bus.
#[derive(Clone, Copy)]
enum At {
    Mmio(u32),
    Port(u16),
}

impl At {
    fn plus(self, offset: u32) -> Self {
        match self {
            Self::Mmio(address) => Self::Mmio(address + offset),
            Self::Port(port) => Self::Port(port + offset as u16),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Mmio(address) => address,
            Self::Port(port) => port.into(),
        }
    }
}

/// What a guest does, with the names that the parts have in the other one.
impl<'vm> Guest<'vm> {
    fn new(vcpu: u32, vm: &'vm Vm, console: &'vm AtomicBool, bells: &'vm StandIn) -> Self {
        Self {
            vcpu,
            devices: vm.devices.dispatcher(),
            exits: &vm.exits[vcpu as usize],
            arrivals: &vm.arrivals,
            console,
            bells,
            next: 0,
            again: 0,
            behind: 0,
            seen: Default::default(),
            place: first_place(vcpu),
            rounds: 0,
            checks: 0,
            misses: 0,
            wrong: 0,
            rings: 0,
            told: false,
        }
    }

    fn run(&mut self, profiles: &Profiles) {
        let latches = [
            (At::Mmio(MMIO_LATCH + 4 * self.vcpu), MMIO_LATCH_SEED),
            (At::Port(PORT_LATCH + 4 * self.vcpu as u16), PORT_LATCH_SEED),
            (At::Mmio(crossing(self.vcpu)), CROSSING_SEED),
        ];
        for (at, seed) in latches {
            self.write(at, Width::Dword, pattern(seed, self.vcpu));
        }
        loop {
            for (at, seed) in latches {
                self.poll();
                self.exercise(at, pattern(seed, self.vcpu));
            }
            self.poll();
            self.strings();
            self.poll();
            self.revisit();
            self.poll();
            self.miss(At::Mmio(MMIO_NOBODY));
            self.miss(At::Port(PORT_NOBODY));
            self.poll();
            self.walk();
            self.ring();
            self.rounds = self.rounds.wrapping_add(1);
            if self.rounds.is_multiple_of(ROUNDS_PER_REPORT) {
                self.report();
            }
            let orders = self.read(self.mailbox(ORDERS), Width::Dword);
            if orders & HALT != 0 {
                return;
            }
            profiles.tell_if_asked(self.vcpu as usize, || self.devices.take_profile());
            if orders & MOVE != 0 {
                self.relocate();
            }
            if self.rounds.is_multiple_of(ROUNDS_PER_LINE) {
                self.print();
            }
        }
    }

    /// Looks whether the next slot is populated, and the one after it first: slots are populated in
    /// order, and so they must be seen.
    fn poll(&mut self) {
        let slot = self.slot(self.next);
        let ahead = slot.plus(SLOT_STRIDE);
        let id_ahead = self.read(ahead, Width::Dword);
        let id_here = self.read(slot, Width::Dword);
        if id_here == FLOATING {
            self.misses += 2;
            self.check(ahead, id_ahead, FLOATING);
            return;
        }
        self.check(slot, id_here, id(self.next));
        if id_ahead == FLOATING {
            self.misses += 1;
        } else {
            self.check(ahead, id_ahead, id(self.next + 1));
        }
        let left = pattern(id(self.next), self.vcpu);
        self.write(slot.plus(SLOT_SCRATCH), Width::Dword, left);
        self.next += 1;
    }

    /// Visits the slots that were seen populated, in turn.
    fn revisit(&mut self) {
        if self.again >= self.next {
            self.again = 0;
            if self.next == 0 {
                return;
            }
        }
        let (slot, id) = (self.slot(self.again), id(self.again));
        self.again += 1;
        for width in WIDTHS {
            self.read_and_check(slot, width, 0, id);
        }
        self.exercise(slot.plus(SLOT_SCRATCH), pattern(id, self.vcpu))
    }

    /// Has a register with a pattern in it change, and change back.
    fn exercise(&mut self, at: At, pattern: u32) {
        let mut shadow = pattern.to_le_bytes();
        for step in EXERCISE {
            let (width, offset, source) = match step {
                Step::Read(width, offset) => {
                    self.read_and_check(at, width, offset, u32::from_le_bytes(shadow));
                    continue;
                }
                Step::Write(width, offset) => (width, offset, pattern),
                Step::WriteInverse(width, offset) => (width, offset, !pattern),
            };
            let bytes = offset as usize..offset as usize + width as usize;
            shadow[bytes.clone()].copy_from_slice(&source.to_le_bytes()[bytes]);
            self.write(at.plus(offset), width, source >> (8 * offset));
        }
    }

    /// Makes accesses that nobody answers.
    fn miss(&mut self, at: At) {
        for width in WIDTHS {
            self.write(at, width, 0);
            self.read_and_check(at, width, 0, FLOATING);
            self.misses += 2;
        }
    }

    /// Reports.
    fn report(&mut self) {
        self.tell(CHECKS, self.checks);
        self.tell(MISSES, self.misses);
        self.tell(WRONG, self.wrong);
        self.tell(RINGS, self.rings);
        (self.checks, self.misses, self.wrong, self.rings) = (0, 0, 0, 0);
    }

    /// Prints a line, unless another guest prints just now.
    fn print(&mut self) {
        if self.console.swap(true, Ordering::Acquire) {
            return;
        }
        let (vcpu, rounds, next) = (self.vcpu, self.rounds, self.next);
        let line = format!("vCPU {vcpu}: rounds: {rounds}, devices seen: {next}\n");
        for byte in line.bytes() {
            while self.read(At::Port(UART_LSR), Width::Byte) & u32::from(LSR_READY) == 0 {}
            self.write(At::Port(UART), Width::Byte, byte.into());
        }
        self.console.store(false, Ordering::Release);
    }

    fn read_and_check(&mut self, at: At, width: Width, offset: u32, holds: u32) {
        let at = at.plus(offset);
        let expected = (holds >> (8 * offset)) & (u32::MAX >> (32 - 8 * width as u32));
        let got = self.read(at, width);
        self.check(at, got, expected)
    }

    fn check(&mut self, at: At, got: u32, expected: u32) {
        self.checks += 1;
        if got == expected {
            return;
        }
        self.wrong += 1;
        if self.told {
            return;
        }
        self.told = true;
        self.tell(FIRST_ADDRESS, at.number());
        self.tell(FIRST_GOT, got);
        self.tell(FIRST_EXPECTED, expected)
    }

    fn tell(&mut self, word: u16, value: u32) {
        self.write(self.mailbox(word), Width::Dword, value)
    }

    fn mailbox(&self, word: u16) -> At {
        At::Port(MAILBOX + MAILBOX_BANK * self.vcpu as u16 + word)
    }

    /// This vCPU's bank of a slot's device.
    fn slot(&self, slot: u32) -> At {
        At::Mmio(SLOTS + SLOT_STRIDE * slot + SLOT_BANK * self.vcpu)
    }
}

/// What the run loop in `kvm/vcpu.rs` does on an exit. An access that crosses a page exits twice.
impl Guest<'_> {
    fn read(&mut self, at: At, width: Width) -> u32 {
        let mut data = [0; 4];
        let bytes = &mut data[..width as usize];
        match at {
            At::Mmio(address) => {
                let (here, beyond) = bytes.split_at_mut(on_page(address, width));
                let next = address + here.len() as u32;
                for (address, bytes) in [(address, here), (next, beyond)] {
                    if !bytes.is_empty() {
                        self.exits.mmio.add_one();
                        let must_find = self.arrivals.must_find(address, bytes.len());
                        let read = self.devices.read_bytes(gpa(address), bytes);
                        self.exits.found(must_find, bytes);
                        self.exits.answered(read);
                    }
                }
            }
            At::Port(port) => {
                self.exits.port.add_one();
                let read = self.devices.read_bytes(Port(port), bytes);
                self.exits.answered(read);
            }
        }
        u32::from_le_bytes(data)
    }

    fn write(&mut self, at: At, width: Width, value: u32) {
        let bytes = &value.to_le_bytes()[..width as usize];
        match at {
            At::Mmio(address) => {
                let (here, beyond) = bytes.split_at(on_page(address, width));
                let next = address + here.len() as u32;
                for (address, bytes) in [(address, here), (next, beyond)] {
                    if !bytes.is_empty() {
                        self.exits.mmio.add_one();
                        let written = self.devices.write_bytes(gpa(address), bytes);
                        self.exits.answered(written);
                    }
                }
            }
            At::Port(port) => {
                self.exits.port.add_one();
                let written = self.devices.write_bytes(Port(port), bytes);
                self.exits.answered(written);
            }
        }
    }
}

/// How many bytes of an access are on the page that it starts in.
fn on_page(address: u32, width: Width) -> usize {
    (width as usize).min((PAGE - address % PAGE) as usize)
}

fn gpa(address: u32) -> GuestPhysAddr {
    GuestPhysAddr::from_usize(address as usize)
}
