//! Changes of the devices while guests run, on a separate thread and at a fixed rate.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use board::{Changer as OfBoard, Changes as Counts, Gone};

use crate::{
    progress::{Progress, Stretch},
    vm::Vm,
};

/// The time between two checks for quiescent cards, while some are removed and not quiescent.
const LOOK: Duration = Duration::from_micros(100);
/// The time between two kicks of the vCPUs, while there are such cards.
const KICK: Duration = Duration::from_millis(1);
/// The longest sleep.
const TICK: Duration = Duration::from_millis(10);
/// The time limit, at the end, for removed cards to become quiescent.
const SETTLING: Duration = Duration::from_secs(5);

/// Changes the devices of a VM.
pub(crate) struct Changer<'vm> {
    vm: &'vm Vm,
    per_second: u32,
    board: OfBoard<'vm>,
    kicked: Instant,
    made: Changes,
}

/// The changes of a run.
#[derive(Default)]
pub(crate) struct Changes {
    /// The number of changes of each kind.
    pub(crate) counts: Counts,
    /// The duration of each call of the registry, in nanoseconds.
    pub(crate) calls: Vec<u64>,
    /// The time from each removal, in a shift or alone, until no vCPU was inside the card, in nanoseconds.
    pub(crate) quiescent: Vec<u64>,
    /// Removed cards that were not quiescent at the end.
    pub(crate) pending: Vec<Gone>,
    /// The progress of each vCPU from the last change to the end.
    pub(crate) settling: Vec<Stretch>,
}

impl<'vm> Changer<'vm> {
    /// Adds the first cards to `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'vm Vm, per_second: u32) -> Result<Self> {
        Ok(Self {
            vm,
            per_second,
            board: OfBoard::new(vm)?,
            kicked: Instant::now(),
            made: Changes::default(),
        })
    }

    /// Makes changes until it is `over`, and then waits until all removed cards are quiescent. `kick`
    /// makes each vCPU leave its guest and drop older tables; `progress` returns the progress of each.
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
        while self.board.pending() > 0 && Instant::now() < settled {
            self.sleep(LOOK);
            self.look(&kick);
        }
        let after = progress();
        let stretches = before.iter().zip(&after);
        self.made.settling = stretches.map(|(a, b)| Stretch::between(a, b)).collect();
        self.made.counts = self.board.changes();
        self.made.pending = self.board.into_pending();
        Ok(self.made)
    }

    /// The time at which the next change is due; `None`: never.
    fn next_at(&self) -> Option<Duration> {
        let total = self.board.changes().total();
        let at = || Duration::from_secs_f64(total as f64 / f64::from(self.per_second));
        (self.per_second > 0).then(at)
    }

    fn change(&mut self) -> Result<()> {
        let made = self.board.change()?;
        self.made.calls.push(made.nanos);
        self.vm.changes.add_one();
        Ok(())
    }

    /// Looks for quiescent cards; if some are not, kicks the vCPUs.
    fn look(&mut self, kick: impl Fn()) {
        self.board.look(|nanos| self.made.quiescent.push(nanos));
        if self.board.pending() > 0 && self.kicked.elapsed() >= KICK {
            kick();
            self.kicked = Instant::now();
        }
    }

    /// Sleeps, at most until the next check.
    fn sleep(&self, time: Duration) {
        let limit = if self.board.pending() > 0 { LOOK } else { TICK };
        thread::sleep(time.min(limit));
    }
}
