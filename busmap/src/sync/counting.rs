//! Atomics that count a thread's operations on them, except loads: for unit tests.

use core::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::atomic::{self, Ordering},
};

std::thread_local! {
    static WRITES: Cell<usize> = const { Cell::new(0) };
}

/// The number of the crate's writes, read-modify-writes and `SeqCst` fences in `run`.
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

/// An atomic that counts the calls of all its methods except `load`.
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
