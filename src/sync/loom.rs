//! The primitives of loom.

use std::{boxed::Box, cell::RefCell};

pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
};
// Set before any model begins, if ever.
pub(crate) type Once<T> = spin::Once<T>;

/// See the other one.
pub(crate) const fn reader_seq_cst(otherwise: Ordering) -> Ordering {
    otherwise
}

/// See the other one.
pub(crate) fn reader_fence() {
    fence(Ordering::SeqCst);
}

/// A mutex with the method of `spin::Mutex`, which loom cannot see into.
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

/// In no particular order: models of the order have one waiter.
pub(crate) use Mutex as FairMutex;

/// What wakes the thread that waits for a lock. Time does not pass: a waiter that nobody wakes waits
/// for ever, which ends the model, unless the model rings for it. (loom's own condition variable gives
/// its threads' tokens for parking away.)
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

/// See the other one.
pub(crate) fn running_context(_told: impl FnOnce() -> usize) -> usize {
    HERE.with(|here| core::ptr::from_ref(&**here).addr())
}

/// What runs at a step, and how many steps are left until then.
type Interrupt = (usize, Box<dyn FnOnce()>);

loom::thread_local! {
    static INTERRUPT: RefCell<Option<Interrupt>> = RefCell::new(None);
}

/// A point at which an interrupt can come. Runs the handler if this is its step.
pub(crate) fn step() {
    let due = INTERRUPT.with(|interrupt| {
        let mut interrupt = interrupt.borrow_mut();
        if let Some((left, _)) = &mut *interrupt
            && *left > 0
        {
            *left -= 1;
            return None;
        }
        interrupt.take()
    });
    if let Some((_, handler)) = due {
        handler();
    }
}

/// Forgets an interrupt that has not come.
#[cfg(test)]
pub(crate) fn interrupt_never() {
    drop(INTERRUPT.with(|interrupt| interrupt.borrow_mut().take()));
}

/// Has `handler` run on this thread at the step after `skipped` others.
#[cfg(test)]
pub(crate) fn interrupt_after(skipped: usize, handler: impl FnOnce() + 'static) {
    INTERRUPT.with(|interrupt| *interrupt.borrow_mut() = Some((skipped, Box::new(handler))));
}
