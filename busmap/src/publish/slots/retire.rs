//! [`SlotRetireList`]: replaced snapshots, until nobody holds them.

use super::{counted::Counted, gate::Gate};
use crate::{
    stack::{Chain, Node, Stack},
    sync::mutant,
};

/// Snapshots that a cell has replaced, and the gate of its loads that use no slot.
///
/// # Invariants
///
/// *Gated*: see the [module](super).
pub(crate) struct SlotRetireList<P> {
    pub(super) gate: Gate,
    retired: Stack<Retired<P>>,
}

/// A snapshot that was replaced, and which counters of the gate were seen at zero since.
struct Retired<P> {
    snapshot: P,
    seen: [bool; 2],
}

impl<P: Counted> SlotRetireList<P> {
    pub(super) fn new() -> Self {
        Self {
            gate: Gate::new(),
            retired: Stack::new(),
        }
    }

    /// Adds a snapshot that the cell no longer gives out.
    pub(super) fn push(&self, snapshot: P) {
        // INVARIANT (Gated): nothing was seen since.
        self.retired.push(Node::new(Retired {
            snapshot,
            seen: [false; 2],
        }));
    }

    /// Frees the snapshots on the list that nobody holds, on this thread.
    ///
    /// What is held is back on the list before anything is dropped, so destructors may use the cell,
    /// and one that unwinds loses nothing.
    pub(crate) fn sweep(&self) {
        // The entries first, then the gate: what it shows holds of entries that were there before.
        let too_early = mutant("reclaim-looks-first").then(|| self.gate.look());
        let taken = self.retired.take();
        let shut = too_early.unwrap_or_else(|| self.gate.look());
        let (mut free, mut held) = (Chain::EMPTY, Chain::EMPTY);
        for mut node in taken {
            let Retired { snapshot, seen } = &mut node.value;
            // INVARIANT (Gated): the counter was zero after the snapshot was replaced.
            seen[0] |= shut[0];
            seen[1] |= shut[1];
            // New references come from holders only, for nobody is left past the gate; so who finds
            // itself the last holder stays it.
            let gated = match () {
                () if mutant("reclaim-ungated") => true,
                () if mutant("reclaim-half-gated") => seen[0] || seen[1],
                () => seen[0] && seen[1],
            };
            if gated && (snapshot.is_last() || mutant("reclaim-held")) {
                free.push(node);
            } else {
                held.push(node);
            }
        }
        self.retired.push_all(held);
        drop(free);
    }
}
