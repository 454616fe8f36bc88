//! [`Slot`]: where a load notes what it read, and a writer that it has paid.

use core::ptr;

use super::counted::Counted;
use crate::sync::{AtomicPtr, Ordering, mutant, ordering, reader_seq_cst, step_unless};

/// The mark of a debt that is paid: the lowest bit of the pointer, which is aligned.
pub(super) const PAID: usize = 1;

/// A slot: free (null), a debt (a pointer), or a debt that is paid (a pointer with a mark).
///
/// # Invariants
///
/// *Owned*: see the [module](super).
pub(super) struct Slot<T>(AtomicPtr<T>);

impl<T> Slot<T> {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Claims the slot, if it is free, with a debt on `ptr`.
    ///
    /// Its order with the second look at `current` is what matters: see the [module](super). Else
    /// nothing is told but the pointer, and a slot that was seen taken is passed over, right or not:
    /// `Relaxed`.
    #[inline]
    pub(super) fn claim(&self, ptr: *mut T) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
            && (self.0)
                .compare_exchange(
                    ptr::null_mut(),
                    ptr,
                    reader_seq_cst(Ordering::Relaxed),
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Gives the slot up. If its debt was paid, the reference that was paid is the caller's.
    ///
    /// Releases the reads of the snapshot to the writer that frees it, which acquires them in
    /// [`pay`](Self::pay); acquires the count of a writer that paid, so that a reference is given up
    /// after it was counted.
    #[inline]
    pub(super) fn free(&self) -> Option<*mut T> {
        let order = ordering!(
            AcqRel, "slot-free-release" => Acquire, "slot-free-acquire" => Release
        );
        let was = self.0.swap(ptr::null_mut(), order);
        (was.addr() & PAID != 0).then(|| was.map_addr(|addr| addr & !PAID))
    }

    /// Pays the slot's debt, if it has one on `ptr`, with a new reference.
    ///
    /// # Safety
    ///
    /// As [`Counted::count`].
    pub(super) unsafe fn pay<P: Counted<Target = T>>(&self, ptr: *mut T) {
        // Acquires what a reader released who has just given the slot up.
        if self.0.load(ordering!(Acquire, "slot-scan" => Relaxed)) != ptr {
            return;
        }
        // The reference comes first: once the mark is there, its owner may give it up.
        // SAFETY: promised by the caller.
        step_unless!("slot-count-late", unsafe { P::count(ptr) });
        let paid = ptr.map_addr(|addr| addr | PAID);
        // On success releases the count to the owner. On failure the owner has given the slot up.
        // Either way acquires what readers have released who had the slot before.
        let exchanged = (self.0).compare_exchange(
            ptr,
            paid,
            ordering!(AcqRel, "slot-pay-release" => Acquire, "slot-pay-acquire" => Release),
            ordering!(Acquire, "slot-pay-failure" => Relaxed),
        );
        if mutant("slot-count-late") && exchanged.is_ok() {
            // SAFETY: promised by the caller.
            unsafe { P::count(ptr) };
            return;
        }
        if exchanged.is_err() {
            // SAFETY: nobody took the reference that was counted above, and the caller has another.
            unsafe { P::give_up(ptr) };
        }
    }
}
