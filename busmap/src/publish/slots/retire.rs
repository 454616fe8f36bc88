//! [`SlotRetireList`]: replaced snapshots, until no thread holds them.

use core::array;

use crossbeam_utils::CachePadded;

use super::{counted::Counted, gate::Gate, slot::Slot};
use crate::{
    stack::{Chain, Node, Stack},
    sync::{Ordering, fence, mutant, step_unless},
};

/// Snapshots that a cell has replaced, and the state that a sweep inspects before it frees one: the slots of the cell's
/// loads, and the gate of loads that use no slot.
///
/// # Invariants
///
/// *Noted* and *Gated*: see the [module](super).
pub(crate) struct SlotRetireList<P: Counted, const N: usize> {
    pub(super) slots: [CachePadded<Slot<P::Target>>; N],
    pub(super) gate: Gate,
    retired: Stack<Retired<P>>,
}

/// A snapshot that was replaced, and whether each counter of the gate was seen at zero since.
struct Retired<P> {
    snapshot: P,
    seen: [bool; 2],
}

impl<P: Counted, const N: usize> SlotRetireList<P, N> {
    pub(super) fn new() -> Self {
        Self {
            slots: array::from_fn(|_| CachePadded::new(Slot::new())),
            gate: Gate::new(),
            retired: Stack::new(),
        }
    }

    /// Adds a snapshot that the cell no longer gives out.
    pub(super) fn push(&self, snapshot: P) {
        // INVARIANT (Gated): no counter was seen at zero since.
        self.retired.push(Node::new(Retired {
            snapshot,
            seen: [false; 2],
        }));
    }

    /// Frees the snapshots on the list that no thread holds, on this thread.
    ///
    /// Held snapshots are back on the list before anything is dropped. So destructors may use the cell, and a
    /// destructor that unwinds loses no snapshot.
    pub(crate) fn sweep(&self) {
        // First the entries, then the fence, then the gate and the slots: their state is valid for every entry.
        let too_early = mutant("reclaim-looks-first").then(|| self.gate.look());
        let taken = self.retired.take();
        let unfenced = mutant("reclaim-fence-late").then(|| self.gate.look());
        // Pairs with the claim and the second look of a load that notes, and with the fence in `Gate::enter`: see the
        // module.
        step_unless!("reclaim-fence", fence(Ordering::SeqCst));
        let shut = too_early.or(unfenced).unwrap_or_else(|| self.gate.look());
        let (mut free, mut held) = (Chain::EMPTY, Chain::EMPTY);
        for mut node in taken {
            let Retired { snapshot, seen } = &mut node.value;
            // INVARIANT (Gated): the counter was zero after the snapshot was replaced.
            seen[0] |= shut[0];
            seen[1] |= shut[1];
            let gated = match () {
                () if mutant("reclaim-ungated") => true,
                () if mutant("reclaim-half-gated") => seen[0] || seen[1],
                () => seen[0] && seen[1],
            };
            if gated && self.is_unheld(snapshot) {
                free.push(node);
            } else {
                held.push(node);
            }
        }
        self.retired.push_all(held);
        drop(free);
    }

    /// Whether a retired snapshot that has passed the gate is in no slot, and the list's reference to
    /// it is the only one.
    ///
    /// If so, this stays true: by *Noted* no slot gets it again, and only holders count new references.
    fn is_unheld(&self, snapshot: &P) -> bool {
        let too_early = mutant("reclaim-counts-first").then(|| snapshot.is_last());
        // The slots first: a load that counts a reference of its own clears its slot after that, so if the slot is seen
        // clear, the reference is seen too.
        let noted = self.is_noted(snapshot.as_ptr()) && !mutant("reclaim-noted");
        let last = too_early.unwrap_or_else(|| snapshot.is_last()) || mutant("reclaim-held");
        !noted && last
    }

    fn is_noted(&self, ptr: *mut P::Target) -> bool {
        self.slots.iter().any(|slot| slot.noted() == ptr)
    }
}
