//! The synchronisation primitives that the crate uses: core's, or [loom](https://docs.rs/loom)'s
//! under `cfg(loom)`. No other file names them.

/// What counts devices. Their type is part of the API, and so never loom's.
pub(crate) use alloc::sync::Arc;

pub(crate) use self::imp::*;

/// An ordering. `--cfg mutant="name"` weakens it, which a model must notice: `.ci/mutants.sh`.
macro_rules! ordering {
    ($strong:ident $(, $name:literal => $weak:ident)+) => {
        $(if cfg!(mutant = $name) {
            $crate::sync::Ordering::$weak
        } else)+ {
            $crate::sync::Ordering::$strong
        }
    };
}

/// A step. `--cfg mutant="name"` leaves it out, which a model must notice: `.ci/mutants.sh`.
#[cfg(any(test, target_os = "none", loom, feature = "slot-cell"))]
macro_rules! step_unless {
    ($name:literal, $step:expr) => {
        if !cfg!(mutant = $name) {
            $step
        }
    };
}

pub(crate) use ordering;
#[cfg(any(test, target_os = "none", loom, feature = "slot-cell"))]
pub(crate) use step_unless;

#[cfg(not(loom))]
#[cfg_attr(
    not(any(test, target_os = "none", feature = "slot-cell")),
    expect(
        dead_code,
        unused_imports,
        reason = "some are of use to the slot cell only"
    )
)]
mod imp {
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
    };

    pub(crate) use spin::{Mutex, MutexGuard};

    /// A point at which an interrupt could come: of interest to models only.
    #[inline(always)]
    pub(crate) const fn step() {}
}

#[cfg(loom)]
mod imp {
    use std::{boxed::Box, cell::RefCell};

    pub(crate) use loom::sync::{
        MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    };

    /// A mutex with the methods of `spin::Mutex`, which loom cannot see into.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no holder panics")
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().expect("no holder panics")
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().expect("no holder panics")
        }
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
}
