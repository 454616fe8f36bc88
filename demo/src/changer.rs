//! Changes of the devices while guests run: on a thread of its own, at a fixed rate, in turn a shift of
//! the full belt and a step of the loose one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use axdevice::{Dispatcher, SharedVmDevices};

use crate::{
    belts::{FullBelt, Gone, LooseBelt, Step},
    options::Sabotage,
    progress::{Progress, Stretch},
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
    /// A handle that keeps its tables from before the first change, if that is sabotaged.
    _held: Option<Dispatcher<&'vm SharedVmDevices>>,
}

/// What was changed, each by one call of the registry.
#[derive(Default)]
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
    /// Removed cards that were not quiescent at the end.
    pub(crate) pending: Vec<Gone>,
    /// How far each vCPU came from the last change to the end.
    pub(crate) settling: Vec<Stretch>,
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
            _held: (vm.sabotage == Some(Sabotage::Hold)).then(|| {
                let mut handle = vm.devices.dispatcher();
                handle.refresh();
                handle
            }),
            loose: LooseBelt::new(vm),
            removals: Removals::new(vm),
            kicked: vm.epoch,
            made: Changes::default(),
        })
    }

    /// Makes changes until it is `over`, and then waits until all that was removed is quiescent. `kick`
    /// makes each vCPU leave its guest and drop older tables; `progress` tells how far each has come.
    pub(crate) fn run(
        mut self,
        over: &AtomicBool,
        kick: impl Fn(),
        progress: impl Fn() -> Vec<Progress>,
    ) -> Result<Changes> {
        let start = Instant::now();
        while !over.load(Ordering::Relaxed) {
            match self.next_at() {
                Some(at) if at <= start.elapsed() => self.change()?,
                Some(at) => self.sleep(at.saturating_sub(start.elapsed())),
                None => self.sleep(TICK),
            }
            self.look(&kick);
        }
        let before = progress();
        let settled = Instant::now() + SETTLING;
        while self.removals.pending() > 0 && Instant::now() < settled {
            self.sleep(LOOK);
            self.look(&kick);
        }
        let after = progress();
        let stretches = before.iter().zip(&after);
        self.made.settling = stretches.map(|(a, b)| Stretch::between(a, b)).collect();
        (self.made.quiescent, self.made.pending) = self.removals.into_parts();
        Ok(self.made)
    }

    /// When the next change is due; `None`: never.
    fn next_at(&self) -> Option<Duration> {
        let at =
            || Duration::from_secs_f64(f64::from(self.made.total()) / f64::from(self.per_second));
        (self.per_second > 0).then(at)
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
        self.vm.changes.add_one();
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
