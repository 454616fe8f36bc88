//! [`Counted`]: the counted pointer that a cell publishes, and [`CountedBox`], the one that it uses.

use alloc::boxed::Box;
use core::{marker::PhantomData, ops::Deref, ptr};

use crate::sync::{Arc, AtomicUsize, Ordering, ordering};

/// A pointer that counts its holders, as `Arc` does. A reader drops its reference by `give_up`, without a check whether
/// it was the last: a reader's reference never is.
///
/// # Safety
///
/// The value behind `into_raw` stays valid, and at the same address, until all its references are released: the one
/// that `into_raw` took, and one for each `count`. Counting is atomic. When `is_last` returns true, everything that the
/// other holders did before they gave up their references happens before.
pub(crate) unsafe trait Counted: Sized {
    /// The value that the pointer leads to.
    type Target;

    /// Converts into a pointer that owns a reference. Not null.
    fn into_raw(self) -> *mut Self::Target;

    /// Takes over a reference of the pointer.
    ///
    /// # Safety
    ///
    /// The pointer came from [`into_raw`](Self::into_raw), and the caller owns one of its references and gives it away.
    unsafe fn from_raw(ptr: *mut Self::Target) -> Self;

    /// Makes another reference, which the caller owns.
    ///
    /// # Safety
    ///
    /// The pointer came from [`into_raw`](Self::into_raw), and a reference exists throughout the call.
    unsafe fn count(ptr: *mut Self::Target);

    /// Gives up a reference that is not the last.
    ///
    /// # Safety
    ///
    /// As for [`from_raw`](Self::from_raw), and another reference exists throughout the call.
    unsafe fn give_up(ptr: *mut Self::Target);

    /// The pointer, as [`into_raw`](Self::into_raw) gives it.
    fn as_ptr(&self) -> *mut Self::Target;

    /// Whether this is the only reference.
    fn is_last(&self) -> bool;
}

/// A counted snapshot.
///
/// # Invariants
///
/// *Held*: the pointer came from a box, and `references` is the number of references, including this one.
pub(crate) struct CountedBox<T> {
    held: ptr::NonNull<Held<T>>,
    owns: PhantomData<Held<T>>,
}

// SAFETY: a snapshot is shared and freed by any of its holders, as with `Arc`.
unsafe impl<T> Send for CountedBox<T> where Arc<T>: Send {}
// SAFETY: the same.
unsafe impl<T> Sync for CountedBox<T> where Arc<T>: Sync {}

/// A value and its count; the value first, so that a pointer to one is a pointer to the other.
#[repr(C)]
struct Held<T> {
    value: T,
    references: AtomicUsize,
}

impl<T> CountedBox<T> {
    pub(crate) fn new(value: T) -> Self {
        let held = Box::new(Held {
            value,
            references: AtomicUsize::new(1),
        });
        Self {
            // INVARIANT: from a box, and one reference.
            held: ptr::NonNull::from(Box::leak(held)),
            owns: PhantomData,
        }
    }

    fn held(&self) -> &Held<T> {
        // SAFETY: by *Held* it lives as long as this reference.
        unsafe { self.held.as_ref() }
    }
}

impl<T> Deref for CountedBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held().value
    }
}

impl<T> Clone for CountedBox<T> {
    fn clone(&self) -> Self {
        // INVARIANT (Held): the new reference is counted.
        self.held().references.fetch_add(1, Ordering::Relaxed);
        Self {
            held: self.held,
            owns: PhantomData,
        }
    }
}

impl<T> Drop for CountedBox<T> {
    fn drop(&mut self) {
        // Releases the uses of the value to the last holder, which acquires them here.
        let before = (self.held().references)
            .fetch_sub(1, ordering!(Release, "snapshot-drop-release" => Relaxed));
        if before == 1 {
            // A load instead of a fence, which ThreadSanitizer does not model. It reads the value that the subtraction
            // wrote, which ends the release sequence of every other subtraction.
            (self.held().references).load(ordering!(Acquire, "snapshot-drop-acquire" => Relaxed));
            // SAFETY: by *Held* it came from a box, and that was the last reference.
            drop(unsafe { Box::from_raw(self.held.as_ptr()) });
        }
    }
}

// SAFETY: a box does not move, and is freed with the last reference (*Held*).
unsafe impl<T> Counted for CountedBox<T> {
    type Target = T;

    fn into_raw(self) -> *mut T {
        core::mem::ManuallyDrop::new(self).as_ptr()
    }

    unsafe fn from_raw(ptr: *mut T) -> Self {
        Self {
            // SAFETY: promised by the caller: it is from `into_raw`, and not null.
            held: unsafe { ptr::NonNull::new_unchecked(ptr.cast()) },
            owns: PhantomData,
        }
    }

    unsafe fn count(ptr: *mut T) {
        let held: *mut Held<T> = ptr.cast();
        // `Relaxed`, as in `Arc`: the counting thread already has a reference or a slot, or is inside the gate, and
        // gives that up later.
        // SAFETY: promised by the caller: the value exists.
        unsafe { &(*held).references }.fetch_add(1, Ordering::Relaxed);
    }

    unsafe fn give_up(ptr: *mut T) {
        let held: *mut Held<T> = ptr.cast();
        // Releases the reads of the value to the last holder, which `is_last` finds.
        // SAFETY: promised by the caller: the value exists.
        unsafe { &(*held).references }
            .fetch_sub(1, ordering!(Release, "snapshot-give-up" => Relaxed));
    }

    fn as_ptr(&self) -> *mut T {
        self.held.as_ptr().cast()
    }

    fn is_last(&self) -> bool {
        // Acquires what the other holders released when they gave up their references.
        self.held()
            .references
            .load(ordering!(Acquire, "snapshot-is-last" => Relaxed))
            == 1
    }
}
