//! The primitives of loom.

use std::boxed::Box;

pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
// Set before any model begins, if ever.
pub(crate) type Once<T> = spin::Once<T>;

/// A mutex of loom with the method of `spin::Mutex`: loom cannot observe a `spin::Mutex`.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("no holder panics")
    }
}

/// A mutex without a defined order of acquisition: models of the order have one waiter.
pub(crate) use Mutex as FairMutex;

/// Wakes the thread that waits for a lock. Time does not pass: a waiter that no thread wakes waits forever, which ends
/// the model, unless the model itself rings the bell. (loom's own condition variable consumes its threads' tokens for
/// parking.)
#[derive(Debug)]
pub(crate) struct Bell(AtomicUsize);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn wait_for<T>(&self, mut take: impl FnMut() -> Option<T>) -> T {
        loop {
            let rings = self.0.load(Ordering::Acquire);
            if let Some(taken) = take() {
                return taken;
            }
            while self.0.load(Ordering::Acquire) == rings {
                loom::thread::yield_now();
            }
        }
    }

    pub(crate) fn ring(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

loom::thread_local! {
    static HERE: Box<u64> = Box::new(0);
}

/// The identity of the running context: an address that no other thread has while this one lives.
pub(crate) fn running_context(_told: impl FnOnce() -> usize) -> usize {
    HERE.with(|here| core::ptr::from_ref(&**here).addr())
}
