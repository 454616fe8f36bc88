//! Changes of the devices while guests run: on a thread of its own, at a fixed rate, in turn a shift of
//! the full belt and a step of the loose one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    belts::{FullBelt, Gone, LooseBelt, Step},
    removals::Removals,
    vm::Vm,
};

/// From one look whether removed cards are quiescent to the next.
const LOOK: Duration = Duration::from_micros(100);
/// From one kick of the vCPUs to the next, while there are cards that are not.
const KICK: Duration = Duration::from_millis(1);
/// The longest sleep.
const TICK: Duration = Duration::from_millis(10);
/// How long removed cards may take, at the end, to be quiescent.
const SETTLING: Duration = Duration::from_secs(5);
/// One in so many changes goes with the order to a guest to move its own device.
const CHANGES_PER_ORDER: u32 = 4;

/// Changes the devices of a VM.
pub(crate) struct Changer<'vm> {
    vm: &'vm Vm,
    per_second: u32,
    full: FullBelt<'vm>,
    loose: LooseBelt<'vm>,
    removals: Removals<'vm>,
    kicked: Instant,
    made: Changes,
}

/// What was changed, each by one call of the registry.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Shifts of the full belt: one card removed, one added, the others moved.
    pub(crate) shifts: u32,
    /// Single cards, on the loose belt.
    pub(crate) added: u32,
    pub(crate) moved: u32,
    pub(crate) removed: u32,
    /// Nanoseconds that each call took.
    pub(crate) calls: Vec<u64>,
    /// Nanoseconds from each removal, of a shift or a single one, until no vCPU was inside the card.
    pub(crate) quiescent: Vec<u64>,
    /// Removed cards that never were quiescent.
    pub(crate) pending: usize,
}

impl Changes {
    /// All.
    pub(crate) fn total(&self) -> u32 {
        self.shifts + self.added + self.moved + self.removed
    }
}

impl<'vm> Changer<'vm> {
    /// Puts the first cards into `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'vm Vm, per_second: u32) -> Result<Self> {
        Ok(Self {
            vm,
            per_second,
            full: FullBelt::new(vm)?,
            loose: LooseBelt::new(vm),
            removals: Removals::new(vm),
            kicked: vm.epoch,
            made: Changes::default(),
        })
    }

    /// Makes changes until it is `over`, and then waits until all that was removed is quiescent. `kick`
    /// has each vCPU leave its guest and let go of older tables.
    pub(crate) fn run(mut self, over: &AtomicBool, kick: impl Fn()) -> Result<Changes> {
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) {
            if self.next_at() <= start.elapsed() {
                self.change()?;
            } else {
                self.sleep(self.next_at().saturating_sub(start.elapsed()));
            }
            self.look(&kick);
        }
        let settled = Instant::now() + SETTLING;
        while self.removals.pending() > 0 && Instant::now() < settled {
            self.sleep(LOOK);
            self.look(&kick);
        }
        self.made.pending = self.removals.pending();
        self.made.quiescent = self.removals.into_nanos();
        Ok(self.made)
    }

    /// When the next change is due.
    fn next_at(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.made.total()) / f64::from(self.per_second))
    }

    fn change(&mut self) -> Result<()> {
        let total = self.made.total();
        if total.is_multiple_of(CHANGES_PER_ORDER) {
            let vcpu = total / CHANGES_PER_ORDER % self.vm.vcpus();
            self.vm.mailbox.order_move(vcpu as usize);
        }
        let called = self.vm.nanos();
        let gone = if total.is_multiple_of(2) {
            self.made.shifts += 1;
            Some(self.full.shift()?)
        } else {
            self.step()?
        };
        self.made.calls.push(self.vm.nanos() - called);
        if let Some(gone) = gone {
            self.removals.push(gone);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Gone>> {
        match self.loose.step()? {
            Step::Added => self.made.added += 1,
            Step::Moved => self.made.moved += 1,
            Step::Removed(gone) => {
                self.made.removed += 1;
                return Ok(Some(gone));
            }
        }
        Ok(None)
    }

    /// Looks whether removed cards are quiescent; if some are not, kicks the vCPUs.
    fn look(&mut self, kick: impl Fn()) {
        self.removals.look();
        if self.removals.pending() > 0 && self.kicked.elapsed() >= KICK {
            kick();
            self.kicked = Instant::now();
        }
    }

    /// Sleeps, at most until it is to look again.
    fn sleep(&self, time: Duration) {
        let limit = if self.removals.pending() > 0 {
            LOOK
        } else {
            TICK
        };
        thread::sleep(time.min(limit));
    }
}
