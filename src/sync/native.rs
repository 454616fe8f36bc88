//! The primitives of `core`, and spinlocks.

use core::sync::atomic;

pub(crate) use core::sync::atomic::Ordering;

pub(crate) type AtomicBool = atomic::AtomicBool;
pub(crate) type AtomicU64 = atomic::AtomicU64;
pub(crate) type AtomicUsize = atomic::AtomicUsize;
pub(crate) type Mutex<T> = spin::Mutex<T>;
pub(crate) type Once<T> = spin::Once<T>;
