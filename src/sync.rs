//! The synchronisation primitives that the crate uses, named in this file alone.

pub(crate) use alloc::sync::Arc;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

pub(crate) use spin::{Mutex, MutexGuard};
