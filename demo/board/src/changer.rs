//! Changes of the devices while guests run: alternately a shift of the full belt and a step of the loose one.

use alloc::vec::Vec;

use axdevice::{Dispatcher, Refusal, SharedVmDevices};
use guest::contract::BAYS;

use crate::{
    Board, Gone, Sabotage,
    belts::{FullBelt, LooseBelt, Step},
    removals::Removals,
};

/// Once in this number of changes, a guest is ordered to move its own device.
const CHANGES_PER_ORDER: u64 = 4;

/// Changes the devices of a board.
pub struct Changer<'b> {
    board: &'b Board,
    full: FullBelt<'b>,
    loose: LooseBelt<'b>,
    removals: Removals<'b>,
    changes: Changes,
    /// A handle that keeps its tables from before the first change, if that is sabotaged.
    _held: Option<Dispatcher<&'b SharedVmDevices>>,
}

/// The number of changes of each kind, each by one call of the registry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Shifts of the full belt: one card removed, one added, the others moved.
    pub shifts: u64,
    /// Single cards that were added to the loose belt.
    pub added: u64,
    /// Single cards that were moved on the loose belt.
    pub moved: u64,
    /// Single cards that were removed from the loose belt.
    pub removed: u64,
}

impl Changes {
    /// All changes.
    pub fn total(&self) -> u64 {
        self.shifts + self.added + self.moved + self.removed
    }

    /// The counts, with their names in a report.
    pub fn figures(&self) -> [(&'static str, u64); 5] {
        const _: () = assert!(BAYS == 8);
        [
            ("changes", self.total()),
            ("shifts, of 8 devices each", self.shifts),
            ("single moves", self.moved),
            ("single removals", self.removed),
            ("single additions", self.added),
        ]
    }
}

/// A change that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// The duration of the call of the registry, in nanoseconds.
    pub nanos: u64,
    /// The vCPU whose guest was ordered to move its device, if one was.
    pub ordered: Option<u32>,
}

impl<'b> Changer<'b> {
    /// Adds the first cards to `board`, before any vCPU runs.
    ///
    /// # Errors
    ///
    /// If the registry refuses one.
    pub fn new(board: &'b Board) -> Result<Self, Refusal> {
        let full = FullBelt::new(board)?;
        let hold = || {
            let mut handle = board.devices.dispatcher();
            handle.refresh();
            handle
        };
        Ok(Self {
            board,
            full,
            loose: LooseBelt::new(board),
            removals: Removals::new(board),
            changes: Changes::default(),
            _held: board.sabotages(Sabotage::Hold).then(hold),
        })
    }

    /// Makes the next change.
    ///
    /// # Errors
    ///
    /// If the registry refuses it.
    pub fn change(&mut self) -> Result<Made, Refusal> {
        let total = self.changes.total();
        let ordered = total
            .is_multiple_of(CHANGES_PER_ORDER)
            .then(|| (total / CHANGES_PER_ORDER % u64::from(self.board.vcpus)) as u32);
        if let Some(vcpu) = ordered {
            self.board.mailbox.order_move(vcpu as usize);
        }
        let called = self.board.nanos();
        let gone = if total.is_multiple_of(2) {
            self.changes.shifts += 1;
            Some(self.full.shift()?)
        } else {
            self.step()?
        };
        let nanos = self.board.nanos() - called;
        if let Some(gone) = gone {
            self.removals.push(gone);
        }
        Ok(Made { nanos, ordered })
    }

    fn step(&mut self) -> Result<Option<Gone>, Refusal> {
        match self.loose.step()? {
            Step::Added => self.changes.added += 1,
            Step::Moved => self.changes.moved += 1,
            Step::Removed(gone) => {
                self.changes.removed += 1;
                return Ok(Some(gone));
            }
        }
        Ok(None)
    }

    /// Looks for removed cards that are now quiescent, and calls `quiescent` with the nanoseconds since each removal.
    pub fn look(&mut self, quiescent: impl FnMut(u64)) {
        self.removals.look(quiescent);
    }

    /// The number of removed cards that are not quiescent.
    pub fn pending(&self) -> usize {
        self.removals.pending()
    }

    /// The number of changes so far.
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// The removed cards that are not quiescent.
    pub fn into_pending(self) -> Vec<Gone> {
        self.removals.into_pending()
    }
}
