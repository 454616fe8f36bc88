//! Waiting on bare metal: a waiter spins.

use core::num::NonZero;

use spin::mutex::TicketMutex;

/// A value that one context at a time accesses. Contexts can wait for its changes.
#[derive(Debug)]
pub(crate) struct Monitor<T>(TicketMutex<T>);

impl<T> Monitor<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(TicketMutex::new(value))
    }

    /// Changes the value. Waiting contexts see it when they look again.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock())
    }

    /// Calls `take` with the value until it returns `Some`.
    pub(crate) fn wait_for<R>(&self, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        loop {
            if let Some(taken) = self.change(&mut take) {
                return taken;
            }
            core::hint::spin_loop();
        }
    }
}

/// The identity of the running context, which the front end provides: there are no threads.
pub(crate) fn running_context(
    told: impl FnOnce() -> Option<NonZero<usize>>,
) -> Option<NonZero<usize>> {
    told()
}
