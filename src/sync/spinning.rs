//! Waiting on bare metal: a waiter spins.

/// A mutex that contexts acquire in order of arrival.
pub(crate) type FairMutex<T> = spin::mutex::TicketMutex<T>;

/// No context sleeps, so there is nothing to wake.
#[derive(Debug)]
pub(crate) struct Bell;

impl Bell {
    pub(crate) const fn new() -> Self {
        Self
    }

    /// Calls `take` until it returns a value.
    pub(crate) fn wait_for<T>(&self, mut take: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(taken) = take() {
                return taken;
            }
            core::hint::spin_loop();
        }
    }

    pub(crate) fn ring(&self) {}
}

/// The identity of the running context, which the embedder gives. There are no threads.
#[inline]
pub(crate) fn running_context(told: impl FnOnce() -> usize) -> usize {
    told()
}
