//! The changes, all by CPU 0, between the exits of its guest and with interrupts enabled.

use board::{Adder, Changer as OfBoard, Changes, Sabotage};

use crate::{
    arch,
    contract::{MAX_CARDS, MAX_SLOTS},
    cpu::{Cpu, Doing},
    vm::Vm,
};

/// The time from one hot-add to the next, in nanoseconds. It is longer if there is not enough room.
const ADD_PERIOD: u64 = 40_000_000;
/// The time from one change to the next, in nanoseconds. It is longer if there are not enough numbers for the cards.
const CHANGE_PERIOD: u64 = 1_000_000;
/// The maximum number of hot-added devices.
const MOST: u32 = MAX_SLOTS / 4;
/// The maximum if the last of them must be missing.
const FEW: u32 = 6;

/// The time at which a periodic change is due. A missed one is left out.
struct Schedule {
    period: u64,
    next: u64,
}

impl Schedule {
    /// Every `period` nanoseconds, from now on.
    fn every(period: u64) -> Self {
        Self { period, next: 0 }
    }

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
    adder: Adder<'static>,
    board: OfBoard<'static>,
}

impl Changer {
    /// Adds the first cards to `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        let length = vm.options.length.as_nanos() as u64;
        let few = vm.sabotages(Sabotage::Unseen) || vm.sabotages(Sabotage::Hidden);
        Self {
            vm,
            adds: Schedule::every(ADD_PERIOD.max(length / u64::from(MOST))),
            changes: Schedule::every(CHANGE_PERIOD.max(length / u64::from(MAX_CARDS))),
            adder: Adder::new(vm, if few { FEW } else { MOST }),
            board: OfBoard::new(vm).expect("free bays"),
        }
    }

    /// Makes the changes that are due, one of a kind at most.
    ///
    /// # Panics
    ///
    /// If the registry refuses one.
    pub(crate) fn change(&mut self, now: u64) {
        let cpu = Cpu::current();
        if self.adds.is_due(now) {
            cpu.while_doing(Doing::Change, || self.adder.add().expect("a free slot"));
        }
        if self.changes.is_due(now) {
            let made = cpu.while_doing(Doing::Change, || self.board.change());
            if let Some(vcpu) = made.expect("a change").ordered {
                arch::chip::interrupt(&self.vm.devices, vcpu);
            }
        }
        self.look();
    }

    /// Looks for removed devices that are now quiescent.
    pub(crate) fn look(&mut self) {
        if self.board.pending() > 0 {
            Cpu::current().while_doing(Doing::Change, || self.board.look(|_| {}));
        }
    }

    /// The devices that were hot-added.
    pub(crate) fn adder(&self) -> &Adder<'static> {
        &self.adder
    }

    /// The number of changes so far.
    pub(crate) fn changes(&self) -> Changes {
        self.board.changes()
    }

    /// The number of removed devices that are still in use.
    pub(crate) fn pending(&self) -> usize {
        self.board.pending()
    }
}
