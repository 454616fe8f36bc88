//! The changes, all by CPU 0, between the exits of its guest and with interrupts enabled: hot-adds, and in turn a shift of
//! the full belt and a step of the loose one.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use axdevice::{Dispatcher, SharedVmDevices};

use crate::{
    arch,
    belts::{FullBelt, Gone, LooseBelt, Step},
    contract::{MAX_CARDS, MAX_SLOTS, SLOTS},
    cpu::{Cpu, Doing},
    devices::Slot,
    options::Sabotage,
    removals::Removals,
    vm::Vm,
};

/// From one hot-add to the next, in nanoseconds. It grows where there is not room enough.
const ADD_PERIOD: u64 = 40_000_000;
/// From one change to the next, in nanoseconds. It grows where there are not numbers enough for the cards.
const CHANGE_PERIOD: u64 = 1_000_000;
/// One in so many changes goes with the order to a guest to move its own device, and with an interrupt of its.
const CHANGES_PER_ORDER: u64 = 4;
/// The most devices that are hot-added.
const MOST: u32 = MAX_SLOTS / 4;

/// When something is due that is done again and again. What is missed is not made up for.
struct Schedule {
    period: u64,
    next: u64,
}

impl Schedule {
    fn is_due(&mut self, now: u64) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now.max(self.next + self.period);
        }
        due
    }
}

/// Changes the devices of the VM.
pub(crate) struct Changer {
    vm: &'static Vm,
    adds: Schedule,
    changes: Schedule,
    /// The most devices that are hot-added.
    most: u32,
    slots: Vec<Arc<Slot>>,
    full: FullBelt,
    loose: LooseBelt,
    removals: Removals,
    made: Changes,
    /// Keeps the tables, if that is sabotaged.
    held: Option<Dispatcher<&'static SharedVmDevices>>,
}

/// What was changed, each by one call of the registry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// Shifts of the full belt: one card removed, one added, the others moved.
    pub(crate) shifts: u64,
    /// Single cards, on the loose belt.
    pub(crate) added: u64,
    pub(crate) moved: u64,
    pub(crate) removed: u64,
}

impl Changes {
    /// All.
    pub(crate) fn total(&self) -> u64 {
        self.shifts + self.added + self.moved + self.removed
    }
}

impl Changer {
    /// Puts the first cards into `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        let length = vm.options.length.as_nanos() as u64;
        Self {
            vm,
            adds: Schedule {
                period: ADD_PERIOD.max(length / u64::from(MOST)),
                next: 0,
            },
            changes: Schedule {
                period: CHANGE_PERIOD.max(length / u64::from(MAX_CARDS)),
                next: 0,
            },
            most: if vm.sabotages(Sabotage::Unseen) {
                6
            } else {
                MOST
            },
            slots: Vec::new(),
            full: FullBelt::new(vm),
            loose: LooseBelt::new(vm),
            removals: Removals::new(vm),
            made: Changes::default(),
            held: None,
        }
    }

    /// Makes the changes that are due, one of a kind at most.
    ///
    /// # Panics
    ///
    /// If the registry refuses one.
    pub(crate) fn change(&mut self, now: u64) {
        let cpu = Cpu::current();
        if self.adds.is_due(now) && self.added() < self.most {
            cpu.while_doing(Doing::Change, || self.add());
        }
        if self.changes.is_due(now) {
            cpu.while_doing(Doing::Change, || self.move_on());
        }
        self.look();
    }

    /// Looks whether what was removed is quiescent.
    pub(crate) fn look(&mut self) {
        if self.removals.pending() > 0 {
            Cpu::current().while_doing(Doing::Change, || self.removals.look());
        }
    }

    /// How many devices were hot-added.
    pub(crate) fn added(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many of the hot-added devices `vcpu` has seen.
    pub(crate) fn seen_by(&self, vcpu: u32) -> usize {
        self.slots.iter().filter(|slot| slot.seen_by(vcpu)).count()
    }

    /// Whether every vCPU has seen every device. Each sees them in order.
    pub(crate) fn all_seen(&self) -> bool {
        let seen = |slot: &Arc<Slot>| (0..self.vm.vcpus).all(|vcpu| slot.seen_by(vcpu));
        self.slots.last().is_none_or(seen)
    }

    /// What was changed.
    pub(crate) fn made(&self) -> Changes {
        self.made
    }

    /// How many removed devices are still in use.
    pub(crate) fn pending(&self) -> usize {
        self.removals.pending()
    }

    fn add(&mut self) {
        let index = self.added();
        let sabotage = self.vm.options.sabotage.filter(|_| index == 0);
        let slot = Arc::new(Slot::new(index, self.vm.vcpus, sabotage));
        self.slots.push(slot.clone());
        if self.vm.sabotages(Sabotage::Unseen) && self.added() == self.most {
            return;
        }
        self.vm.devices.add_mmio_dev(slot).expect("a free slot");
        self.vm.added.store(index + 1, Ordering::Release);
    }

    fn move_on(&mut self) {
        let total = self.made.total();
        if total.is_multiple_of(CHANGES_PER_ORDER) {
            let vcpu = (total / CHANGES_PER_ORDER % u64::from(self.vm.vcpus)) as u32;
            self.vm.mailbox.order_move(vcpu as usize);
            arch::chip::interrupt(&self.vm.devices, vcpu);
        }
        if self.vm.sabotages(Sabotage::Held) && total == 10 {
            let mut held = self.vm.devices.dispatcher();
            // So that it holds them.
            let read = held.handle_mmio_read((SLOTS as usize).into(), axdevice::AccessWidth::Dword);
            read.expect("the first slot");
            self.held = Some(held);
        }
        let gone = if total.is_multiple_of(2) {
            self.made.shifts += 1;
            Some(self.full.shift().expect("a shift"))
        } else {
            self.step()
        };
        if let Some(gone) = gone {
            self.removals.push(gone);
        }
    }

    fn step(&mut self) -> Option<Gone> {
        match self.loose.step().expect("a step") {
            Step::Added => self.made.added += 1,
            Step::Moved => self.made.moved += 1,
            Step::Removed(gone) => {
                self.made.removed += 1;
                return Some(gone);
            }
        }
        None
    }
}
