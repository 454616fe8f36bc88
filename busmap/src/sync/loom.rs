//! The primitives of loom.

use core::num::NonZero;
use std::{boxed::Box, cell::RefCell};

/// For models only.
#[cfg(test)]
pub(crate) use loom::sync::atomic::AtomicBool;
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

/// See `native.rs`.
pub(crate) const fn reader_seq_cst(otherwise: Ordering) -> Ordering {
    otherwise
}

/// See `native.rs`.
pub(crate) fn reader_fence() {
    fence(Ordering::SeqCst);
}

/// The code that runs at a step, and the number of steps until then.
type Interrupt = (usize, Box<dyn FnOnce()>);

loom::thread_local! {
    static INTERRUPT: RefCell<Option<Interrupt>> = RefCell::new(None);
}

/// A point at which an interrupt can occur. Runs the handler if this is its step.
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

/// Cancels an interrupt that has not occurred.
#[cfg(test)]
pub(crate) fn interrupt_never() {
    drop(INTERRUPT.with(|interrupt| interrupt.borrow_mut().take()));
}

/// Runs `handler` on this thread at the step after `skipped` others.
#[cfg(test)]
pub(crate) fn interrupt_after(skipped: usize, handler: impl FnOnce() + 'static) {
    INTERRUPT.with(|interrupt| *interrupt.borrow_mut() = Some((skipped, Box::new(handler))));
}

/// See `sleeping.rs`.
#[derive(Debug)]
pub(crate) struct Monitor<T> {
    value: loom::sync::Mutex<T>,
    changed: loom::sync::Condvar,
}

impl<T> Monitor<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: loom::sync::Mutex::new(value),
            changed: loom::sync::Condvar::new(),
        }
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value.lock().expect("no holder panics"));
        self.changed.notify_all();
        changed
    }

    pub(crate) fn wait_for<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut value = self.value.lock().expect("no holder panics");
        loop {
            if let Some(taken) = take(&mut value) {
                return taken;
            }
            value = self.changed.wait(value).expect("no holder panics");
        }
    }
}

loom::thread_local! {
    static HERE: Box<u64> = Box::new(0);
}

/// See `sleeping.rs`.
pub(crate) fn running_context(
    _told: impl FnOnce() -> Option<NonZero<usize>>,
) -> Option<NonZero<usize>> {
    NonZero::new(HERE.with(|here| core::ptr::from_ref(&**here).addr()))
}
