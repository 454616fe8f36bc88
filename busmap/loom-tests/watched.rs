//! [`Watched`]: memory in which races are detected. The models of `axdevice` use this file too.

#[cfg(loom)]
use loom::cell::UnsafeCell;

/// Memory that loom watches for races; without loom, a cell that Miri and the sanitizers watch.
#[cfg(not(loom))]
#[derive(Debug)]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    fn with<U>(&self, f: impl FnOnce(*const T) -> U) -> U {
        f(self.0.get())
    }

    fn with_mut<U>(&self, f: impl FnOnce(*mut T) -> U) -> U {
        f(self.0.get())
    }
}

/// A number in memory that is watched for races.
#[derive(Debug)]
pub(super) struct Watched(UnsafeCell<usize>);

// SAFETY: the models check that no thread writes it while another thread reads or writes it.
unsafe impl Sync for Watched {}

impl Watched {
    pub(super) fn new(value: usize) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(super) fn read(&self) -> usize {
        // SAFETY: the modelled code guarantees that no thread writes at the same time.
        self.0.with(|value| unsafe { *value })
    }

    pub(super) fn write(&self, new: usize) {
        // SAFETY: the modelled code guarantees that no other thread is here at the same time.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}
