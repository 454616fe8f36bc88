//! [`Slot`]: a place where a load notes the pointer that it reads.

use core::ptr;

use crate::sync::{AtomicPtr, Ordering, ordering, reader_seq_cst};

/// A slot: free (null), or the pointer that its owner reads.
///
/// # Invariants
///
/// *Owned*: see the [module](super).
pub(super) struct Slot<T>(AtomicPtr<T>);

impl<T> Slot<T> {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Claims the slot, if it is free, and notes `ptr` in it.
    ///
    /// The claim is ordered with the second look at `current`: see the [module](super). It also acquires what earlier
    /// owners released: see [`clear`](Self::clear). After a failed claim the load reads nothing: `Relaxed`.
    #[inline]
    pub(super) fn claim(&self, ptr: *mut T) -> bool {
        // INVARIANT (Owned): of the threads that find the slot free, only one makes the exchange.
        let claimed = self.0.compare_exchange(
            ptr::null_mut(),
            ptr,
            reader_seq_cst(ordering!(Acquire, "slot-claim" => Relaxed)),
            Ordering::Relaxed,
        );
        claimed.is_ok()
    }

    /// Whether the slot is free. The answer may be outdated, which [`claim`](Self::claim) detects: `Relaxed`.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Frees the slot, which the caller owns.
    ///
    /// Releases the reads of the snapshot to the sweep that frees it, which acquires them in [`noted`](Self::noted). If
    /// the sweep reads a later owner's value instead, it acquires them too: the later owner's claim has acquired them,
    /// and the sweep reads either that claim, or a value that was released after it.
    #[inline]
    pub(super) fn clear(&self) {
        // INVARIANT (Owned): no other thread writes to a slot that is not free, so a store suffices.
        let order = ordering!(Release, "slot-clear" => Relaxed);
        self.0.store(ptr::null_mut(), order);
    }

    /// The noted pointer. Acquires the releases of the slot's earlier owners.
    pub(super) fn noted(&self) -> *mut T {
        self.0.load(ordering!(Acquire, "slot-noted" => Relaxed))
    }
}
