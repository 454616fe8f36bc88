//! The synchronisation primitives that the crate uses: core's, or [loom](https://docs.rs/loom)'s
//! under `cfg(loom)`. No other file names them.

/// What counts devices. Their type is part of the API, and so never loom's.
pub(crate) use alloc::sync::{Arc, Weak};

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
macro_rules! step_unless {
    ($name:literal, $step:expr) => {
        if !cfg!(mutant = $name) {
            $step
        }
    };
}

pub(crate) use {ordering, step_unless};

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
    pub(crate) use core::sync::atomic::Ordering;
    #[cfg(not(test))]
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};

    #[cfg(test)]
    pub(crate) use super::counting::*;

    pub(crate) use spin::{Mutex, MutexGuard};

    /// The ordering of the two accesses of a *store-buffering reader*: one that writes here, then
    /// reads there, where a writer writes there, has a `SeqCst` fence, then reads here.
    ///
    /// `SeqCst`, so that of the two sides one sees the other's write. For let the reader's read `r`
    /// miss the writer's write. That write comes before the fence `f`, so `r` precedes `f` in the
    /// single total order of `SeqCst` operations; the reader's write `w` precedes `r`, being before
    /// it in program order. If the writer's read missed `w` as well, `f` would precede `w`, and the
    /// order would be a circle. (C++20, [atomics.order]/4, which is Rust's model. A fence between
    /// `w` and `r` would do too. On x86 it costs a third of a load, and these orderings nothing,
    /// since `w` is a locked instruction.)
    ///
    /// loom takes `SeqCst` accesses for `AcqRel`. There the ordering is `otherwise`, and
    /// [`reader_fence`] a fence.
    #[inline(always)]
    pub(crate) const fn reader_seq_cst(_otherwise: Ordering) -> Ordering {
        Ordering::SeqCst
    }

    /// Stands between the two accesses of a store-buffering reader: see [`reader_seq_cst`].
    #[inline(always)]
    pub(crate) const fn reader_fence() {}

    /// A point at which an interrupt could come: of interest to models only.
    #[inline(always)]
    pub(crate) const fn step() {}
}

/// Atomics that count what a thread does with them, but for loads: for unit tests.
#[cfg(all(test, not(loom)))]
mod counting {
    use core::{
        cell::Cell,
        ops::{Deref, DerefMut},
        sync::atomic::{self, Ordering},
    };

    std::thread_local! {
        static WRITES: Cell<usize> = const { Cell::new(0) };
    }

    /// How many writes, read-modify-writes and `SeqCst` fences of the crate's `run` comes to.
    pub(crate) fn writes(run: impl FnOnce()) -> usize {
        let before = WRITES.get();
        run();
        WRITES.get() - before
    }

    fn count() {
        WRITES.set(WRITES.get() + 1);
    }

    pub(crate) fn fence(order: Ordering) {
        count();
        atomic::fence(order);
    }

    /// An atomic whose every method is counted that is not its own: all but `load`.
    #[derive(Debug)]
    pub(crate) struct Counting<A>(A);

    pub(crate) type AtomicBool = Counting<atomic::AtomicBool>;
    pub(crate) type AtomicPtr<T> = Counting<atomic::AtomicPtr<T>>;
    pub(crate) type AtomicU64 = Counting<atomic::AtomicU64>;
    pub(crate) type AtomicUsize = Counting<atomic::AtomicUsize>;

    impl<A> Deref for Counting<A> {
        type Target = A;

        fn deref(&self) -> &A {
            count();
            &self.0
        }
    }

    impl<A> DerefMut for Counting<A> {
        fn deref_mut(&mut self) -> &mut A {
            &mut self.0
        }
    }

    macro_rules! counting {
        ($atomic:ty, $value:ty $(, $t:ident)?) => {
            impl$(<$t>)? Counting<$atomic> {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(<$atomic>::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.0.load(order)
                }
            }
        };
    }

    counting!(atomic::AtomicBool, bool);
    counting!(atomic::AtomicPtr<T>, *mut T, T);
    counting!(atomic::AtomicU64, u64);
    counting!(atomic::AtomicUsize, usize);
}

#[cfg(loom)]
mod imp {
    use std::{boxed::Box, cell::RefCell};

    pub(crate) use loom::sync::{
        MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    };

    /// See the other one.
    pub(crate) const fn reader_seq_cst(otherwise: Ordering) -> Ordering {
        otherwise
    }

    /// See the other one.
    pub(crate) fn reader_fence() {
        fence(Ordering::SeqCst);
    }

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
