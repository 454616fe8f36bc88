//! Waiting on hosted targets: a waiter sleeps.

use core::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A value that one thread at a time accesses. Threads can wait for its changes.
#[derive(Debug)]
pub(crate) struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Monitor<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Condvar::new(),
        }
    }

    /// Changes the value, and wakes the waiting threads.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Calls `take` with the value, now and after each change, until it returns `Some`.
    pub(crate) fn wait_for<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut value = self.lock();
        loop {
            if let Some(taken) = take(&mut value) {
                return taken;
            }
            let changed = self.changed.wait(value);
            value = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Not poisoned in practice: no closure that gets the value panics.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

std::thread_local! {
    static HERE: u64 = const { 0 };
}

/// The identity of the running context: a number that no other thread has while this one lives.
pub(crate) fn running_context(
    _told: impl FnOnce() -> Option<NonZero<usize>>,
) -> Option<NonZero<usize>> {
    NonZero::new(HERE.with(|here| core::ptr::from_ref(here).addr()))
}
