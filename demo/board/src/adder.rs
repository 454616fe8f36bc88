//! Hot-adds: populates one slot after the other.

use alloc::{sync::Arc, vec::Vec};

use axdevice::Refusal;

use crate::{Board, Sabotage, Slot};

/// Populates slots.
pub struct Adder<'b> {
    board: &'b Board,
    limit: u32,
    added: Vec<Added>,
}

/// A hot-added device.
pub struct Added {
    slot: Arc<Slot>,
    /// The time of the call of the registry, in the host's nanoseconds.
    pub called: u64,
    /// The time when it had returned, in the host's nanoseconds.
    pub returned: u64,
}

impl Added {
    /// The time when `vcpu` first saw the device, in the host's nanoseconds.
    pub fn first_seen(&self, vcpu: u32) -> Option<u64> {
        self.slot.first_seen(vcpu)
    }
}

impl<'b> Adder<'b> {
    /// Populates at most `limit` slots of `board`.
    pub fn new(board: &'b Board, limit: u32) -> Self {
        let added = Vec::with_capacity(limit as usize);
        Self {
            board,
            limit,
            added,
        }
    }

    /// Populates the next slot, unless all slots are populated.
    ///
    /// # Errors
    ///
    /// If the registry refuses the device.
    pub fn add(&mut self) -> Result<(), Refusal> {
        let (board, index) = (self.board, self.count());
        if index == self.limit {
            return Ok(());
        }
        let sabotage = board.sabotage.filter(|_| index == 0);
        let slot = Arc::new(Slot::new(index, board.vcpus, board.host, sabotage));
        let fails = |how| board.sabotages(how) && index + 1 == self.limit;
        let called = board.nanos();
        if !fails(Sabotage::Hidden) && !fails(Sabotage::Unseen) {
            board.devices.add_mmio_dev(slot.clone())?;
        }
        let returned = board.nanos();
        if !fails(Sabotage::Unseen) {
            board.arrivals.announce();
        }
        self.added.push(Added {
            slot,
            called,
            returned,
        });
        Ok(())
    }

    /// Whether every vCPU has seen every device. Each sees them in order.
    pub fn all_seen(&self) -> bool {
        let seen =
            |added: &Added| (0..self.board.vcpus).all(|vcpu| added.first_seen(vcpu).is_some());
        self.added.last().is_none_or(seen)
    }

    /// The number of devices that `vcpu` has seen.
    pub fn seen(&self, vcpu: u32) -> usize {
        let seen = |added: &&Added| added.first_seen(vcpu).is_some();
        self.added.iter().filter(seen).count()
    }

    /// The number of devices that were added.
    pub fn count(&self) -> u32 {
        self.added.len() as u32
    }

    /// The number of devices that are still to be added.
    pub fn left(&self) -> u32 {
        self.limit - self.count()
    }

    /// The devices that were added.
    pub fn into_added(self) -> Vec<Added> {
        self.added
    }
}
