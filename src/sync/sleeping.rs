//! Waiting on hosted targets: a waiter sleeps.

use core::time::Duration;

use crossbeam_utils::Backoff;
use parking_lot::Condvar;

/// A mutex that threads acquire in order of arrival. A waiter sleeps.
pub(crate) type FairMutex<T> = parking_lot::FairMutex<T>;

/// The longest time that a waiter sleeps before it checks the lock again without a ring.
const NAP: Duration = Duration::from_millis(1);

/// Wakes the thread that waits for a lock.
#[derive(Debug)]
pub(crate) struct Bell {
    mutex: parking_lot::Mutex<()>,
    rung: Condvar,
}

impl Bell {
    pub(crate) const fn new() -> Self {
        Self {
            mutex: parking_lot::Mutex::new(()),
            rung: Condvar::new(),
        }
    }

    /// Calls `take` until it returns a value: a few times immediately, then after each ring, and at
    /// least once a millisecond.
    pub(crate) fn wait_for<T>(&self, mut take: impl FnMut() -> Option<T>) -> T {
        let backoff = Backoff::new();
        while !backoff.is_completed() {
            if let Some(taken) = take() {
                return taken;
            }
            backoff.snooze();
        }
        let mut asleep = self.mutex.lock();
        loop {
            // Under the mutex: a ring happens either before this check or while this thread sleeps.
            if let Some(taken) = take() {
                return taken;
            }
            self.rung.wait_for(&mut asleep, NAP);
        }
    }

    /// Wakes the thread that waits, if one does.
    #[cold]
    pub(crate) fn ring(&self) {
        // The waiter already sleeps, or has not checked yet.
        drop(self.mutex.lock());
        self.rung.notify_one();
    }
}

std::thread_local! {
    /// Aligned to 4 bytes at least, so that no address is zero, one or two.
    static HERE: u64 = const { 0 };
}

/// The identity of the running context: a number that no other thread has while this one lives.
#[inline]
pub(crate) fn running_context(_told: impl FnOnce() -> usize) -> usize {
    HERE.with(|here| core::ptr::from_ref(here).addr())
}
