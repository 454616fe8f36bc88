//! [`Gate`]: tells a writer when the loads that use no slot are through.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicUsize, Ordering, fence, step};

/// Two counters of the loads between reading a pointer and counting a reference to it.
///
/// Loads enter by one of them, and each look turns them to the other, so that each falls to zero
/// sooner or later though loads keep coming.
pub(super) struct Gate {
    side: AtomicUsize,
    inside: [CachePadded<AtomicUsize>; 2],
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            side: AtomicUsize::new(0),
            inside: [0, 0].map(|n| CachePadded::new(AtomicUsize::new(n))),
        }
    }

    /// Lets a load in: what it reads from now on waits for it.
    pub(super) fn enter(&self) -> Pass<'_> {
        // Any side will do, so `Relaxed`.
        let inside = &self.inside[self.side.load(Ordering::Relaxed) & 1];
        step();
        // Its order with the load's look at `current` is the fence's business.
        inside.fetch_add(1, Ordering::Relaxed);
        step();
        // Pairs with the fence of a writer after it replaced the pointer: if this comes first, the
        // writer, or whoever took the snapshot from it, sees the counter up in `look`; if the
        // writer's does, the load that follows here sees the new pointer.
        fence(Ordering::SeqCst);
        Pass(inside)
    }

    /// Which counters are at zero. Sends loads that come to the other.
    pub(super) fn look(&self) -> [bool; 2] {
        // Acquires the counts of the loads that have left. They left by read-modify-writes, so a
        // zero comes after all of them.
        let shut = [0, 1].map(|k| self.inside[k].load(Ordering::Acquire) == 0);
        // A hint to the loads, so `Relaxed`.
        self.side.fetch_xor(1, Ordering::Relaxed);
        shut
    }
}

/// A load that is inside the gate.
pub(super) struct Pass<'g>(&'g AtomicUsize);

impl Drop for Pass<'_> {
    /// Releases the count of the reference to [`look`](Gate::look).
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
