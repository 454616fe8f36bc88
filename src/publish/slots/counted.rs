//! [`Counted`]: what a cell needs of the pointer that it publishes.

use crate::sync::SnapshotArc;

/// A pointer that counts its holders, as `Arc` does.
///
/// # Safety
///
/// What `into_raw` gives stays valid, and at the same address, until as many references are given
/// up (`from_raw` and a drop, or `uncount`) as there are (the one that `into_raw` took, and one for
/// each `count`). Counting is atomic; a holder that finds itself the last by `is_last` comes after
/// everything that the others did before they gave theirs up.
pub(crate) unsafe trait Counted: Sized {
    /// What is pointed to.
    type Target;

    /// The pointer, its reference with it. Never null.
    fn into_raw(self) -> *mut Self::Target;

    /// The reference back.
    ///
    /// # Safety
    ///
    /// The pointer came from [`into_raw`](Self::into_raw), and one of its references is the
    /// caller's to give.
    unsafe fn from_raw(ptr: *mut Self::Target) -> Self;

    /// Makes another reference, which belongs to the caller.
    ///
    /// # Safety
    ///
    /// The pointer came from [`into_raw`](Self::into_raw), and somebody holds a reference meanwhile.
    unsafe fn count(ptr: *mut Self::Target);

    /// Gives up a reference.
    ///
    /// # Safety
    ///
    /// As for [`from_raw`](Self::from_raw).
    unsafe fn uncount(ptr: *mut Self::Target) {
        // SAFETY: the caller's promise is the same.
        drop(unsafe { Self::from_raw(ptr) });
    }

    /// Whether this is the only reference.
    fn is_last(&mut self) -> bool;
}

// SAFETY: these are the promises of `Arc`.
unsafe impl<T> Counted for SnapshotArc<T> {
    type Target = T;

    fn into_raw(self) -> *mut T {
        Self::into_raw(self).cast_mut()
    }

    unsafe fn from_raw(ptr: *mut T) -> Self {
        // SAFETY: promised by the caller.
        unsafe { Self::from_raw(ptr) }
    }

    unsafe fn count(ptr: *mut T) {
        // SAFETY: promised by the caller.
        unsafe { Self::increment_strong_count(ptr) };
    }

    fn is_last(&mut self) -> bool {
        Self::get_mut(self).is_some()
    }
}
