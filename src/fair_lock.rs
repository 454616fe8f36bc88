//! [`FairLock`]: a lock that contexts acquire in order of arrival.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use ax_errno::{AxError, AxResult};

use crate::{
    context,
    sync::{AtomicUsize, Bell, FairMutex, Ordering::Relaxed, mutant, ordering, step_unless},
};

/// `holder` if no context is inside.
const FREE: usize = 0;

/// `holder` if no context is inside, and the first waiter is the next to enter.
const RESERVED: usize = 2;

/// A mutual-exclusion lock with a FIFO queue of waiters.
///
/// Contexts enter in order of arrival, except that a context that arrives just as another begins to wait may enter
/// before it. On hosted targets a waiter sleeps. A context that is already inside gets an error immediately, if
/// [`context`] distinguishes contexts.
///
/// While no context waits, entering and leaving together cost one read-modify-write. Waiters form a
/// queue, and only the first of them watches the lock.
///
/// # Invariants
///
/// - *Alone*: `value` is accessed only by the context that has changed `holder` from [`FREE`] or [`RESERVED`] to its
///   own identity, until it changes it back. An identity is neither of these two values. Two contexts that can be
///   inside at the same time have the same identity only if it is [`context::UNKNOWN`].
/// - *Reserved*: `waiting` counts the contexts that have begun to wait and have not entered. `holder` is [`RESERVED`]
///   only while there are waiters, and then only the first in the queue takes it.
///
/// # Waiters that are missed
///
/// A context that leaves first checks whether others wait, then stores that it has left. It misses a context that
/// begins to wait in between, or whose processor checks the holder before other processors see that it waits. Another
/// context may then pass the missed one, once, and the bell does not ring for it. The missed context enters nevertheless,
/// because no waiter sleeps longer than the limit of [`Bell::wait_for`] before it checks again. To miss none, each
/// access would need a second read-modify-write or a fence.
pub(crate) struct FairLock<T> {
    holder: AtomicUsize,
    waiting: AtomicUsize,
    queue: FairMutex<()>,
    bell: Bell,
    value: UnsafeCell<T>,
}

// SAFETY: by *Alone* one context at a time has access to the value, and its accesses happen before those of the next
// one: `leave` releases them, `take` acquires them. So threads only pass the value to each other, which `T: Send`
// allows.
unsafe impl<T: Send> Sync for FairLock<T> {}

impl<T> FairLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            holder: AtomicUsize::new(FREE),
            waiting: AtomicUsize::new(0),
            queue: FairMutex::new(()),
            bell: Bell::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Enters once all earlier contexts have left; no other context is inside at the same time.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](AxError::ResourceBusy) if this context is inside already.
    #[inline]
    pub(crate) fn enter(&self) -> AxResult<Entered<'_, T>> {
        self.take(FREE).map_or_else(|| self.wait(), Ok)
    }

    /// Takes the lock if `holder` is as expected.
    #[inline]
    fn take(&self, expected: usize) -> Option<Entered<'_, T>> {
        // Acquires the accesses of earlier contexts inside: pairs with `leave`. A failure takes nothing.
        let acquire = ordering!(Acquire, "lock-acquire" => Relaxed);
        // INVARIANT: *Alone*.
        let taken = self
            .holder
            .compare_exchange(expected, context::current(), acquire, Relaxed);
        // INVARIANT: *Here*. Made only if the lock was taken, because its drop leaves the lock.
        taken.is_ok().then(|| Entered {
            lock: self,
            here: PhantomData,
        })
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> AxResult<Entered<'_, T>> {
        let context = context::current();
        // Exact, though `Relaxed`: only this context stores its identity, and it sees its own stores.
        if context != context::UNKNOWN && self.holder.load(Relaxed) == context {
            return Err(AxError::ResourceBusy);
        }
        // INVARIANT: *Reserved*. `Relaxed`: a context that misses it leaves the lock free.
        self.waiting.fetch_add(1, Relaxed);
        let _first = self.queue.lock();
        let entered = self
            .bell
            .wait_for(|| self.take(RESERVED).or_else(|| self.take(FREE)));
        // INVARIANT: *Reserved*. Subtracted before this context leaves, and so before later contexts enter.
        self.waiting.fetch_sub(1, Relaxed);
        Ok(entered)
    }

    #[inline]
    fn leave(&self) {
        // Releases this context's accesses inside: pairs with `take`.
        let release = ordering!(Release, "lock-release" => Relaxed);
        // `Relaxed`: it counts no context that was inside earlier, because each subtracted itself before this one
        // entered. It may miss a context that begins to wait: see "Waiters that are missed".
        if self.waiting.load(Relaxed) == 0 {
            // INVARIANT: *Alone*.
            self.holder.store(FREE, release);
        } else {
            // INVARIANT: *Alone*, *Reserved*.
            let next = if mutant("lock-passes") {
                FREE
            } else {
                RESERVED
            };
            self.holder.store(next, release);
            step_unless!("lock-silent", self.bell.ring());
        }
    }

    /// Advances the time to the point at which the first waiter checks the lock without a ring.
    #[cfg(test)]
    pub(crate) fn nap_ends(&self) {
        self.bell.ring();
    }

    /// The number of contexts that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Enters if the lock is free.
    #[cfg(test)]
    pub(crate) fn try_enter(&self) -> Option<Entered<'_, T>> {
        self.take(FREE)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

/// The guard of a [`FairLock`]: the context that holds it has exclusive access until it drops it.
///
/// # Invariants
///
/// - *Here*: it stays with the context that entered, and is neither `Send` nor `Sync`, regardless of `T`.
pub(crate) struct Entered<'l, T> {
    lock: &'l FairLock<T>,
    here: PhantomData<*const ()>,
}

impl<T> Drop for Entered<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave();
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by *Alone* no other context accesses the value. By *Here* this context is the one that may, and it
        // accesses the value only through this guard, which is borrowed.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::Cell;

    use static_assertions::{assert_impl_all, assert_not_impl_any};

    use super::*;

    assert_impl_all!(FairLock<Cell<u8>>: Send, Sync);
    assert_not_impl_any!(FairLock<std::rc::Rc<u8>>: Send, Sync);
    // A guard that two threads share would let both into a value that is not `Sync`.
    assert_not_impl_any!(Entered<'_, Cell<u8>>: Send, Sync);
}
