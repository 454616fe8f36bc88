//! The identity of the running context: a thread, or on bare metal a context that the embedder identifies.

use core::num::NonZero;

use ax_errno::{AxError, AxResult};

use crate::sync::{Once, running_context};

/// The smallest identity that distinguishes contexts. The values below are marks of [`FairLock`](crate::fair_lock) and
/// [`UNKNOWN`].
const FIRST: usize = 3;

/// The identity of a context that cannot be distinguished from others.
pub(crate) const UNKNOWN: usize = 1;

/// The embedder's function that identifies contexts.
static CONTEXT_ID: Once<fn() -> usize> = Once::new();

/// Sets, once for all registries, the function that returns the identity of the running context on
/// bare metal.
///
/// A [`Serialized`](crate::Serialized) device needs it to distinguish an access that waits for another context from one
/// that would wait for itself. The second is an error. Without the function it waits for itself forever, as with any
/// spinlock. A registry with a [`Listener`](crate::Listener) needs it to distinguish a change by another context from
/// one by the listener. On hosted targets contexts are threads, and the function is not called.
///
/// Two contexts that can be inside devices at the same time must have different identities, and a context must keep its
/// identity from its entry into a device until it leaves. The address of the current task is suitable. The number of
/// the CPU is suitable only if no handler is preempted or sleeps. With identities that break this rule, accesses fail
/// or wait forever; still only one context at a time enters a device.
///
/// The function is called in every access to a serialized device, by the context that makes the
/// access, and in every change of a registry with a listener. It must not use a registry.
///
/// # Errors
///
/// [`AlreadyExists`](AxError::AlreadyExists) if a function was set before; that one stays.
///
/// # Examples
///
/// ```
/// fn current_task() -> usize {
///     // … the address of the scheduler's current task
/// #   0xffff_8000
/// }
///
/// axdevice::set_context_id(current_task)?;
/// assert_eq!(axdevice::set_context_id(current_task), Err(ax_errno::AxError::AlreadyExists));
/// # Ok::<(), ax_errno::AxError>(())
/// ```
pub fn set_context_id(context_id: fn() -> usize) -> AxResult {
    let mut is_set = false;
    CONTEXT_ID.call_once(|| {
        is_set = true;
        context_id
    });
    is_set.then_some(()).ok_or(AxError::AlreadyExists)
}

/// The identity of the running context: [`UNKNOWN`], or from [`FIRST`] on.
#[inline]
pub(crate) fn current() -> usize {
    running_context(told)
}

/// The identity of the running context, if it can be distinguished from others.
pub(crate) fn identity() -> Option<NonZero<usize>> {
    match current() {
        UNKNOWN => None,
        identity => NonZero::new(identity),
    }
}

/// Returns the identity that the embedder's function returns.
#[inline]
fn told() -> usize {
    match CONTEXT_ID.get() {
        Some(context_id) => context_id().saturating_add(FIRST),
        None => UNKNOWN,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_first_function_stays_and_its_identities_are_no_marks() {
        assert_eq!(told(), UNKNOWN);
        assert_eq!(set_context_id(|| 0), Ok(()));
        assert_eq!(set_context_id(|| 7), Err(AxError::AlreadyExists));
        assert_eq!(told(), FIRST);
    }

    #[test]
    fn each_thread_has_its_own_identity() {
        let here = current();
        assert_eq!(current(), here);
        let elsewhere = std::thread::spawn(current).join().unwrap();
        assert_ne!(elsewhere, here);
        assert!(here >= FIRST && elsewhere >= FIRST);
    }
}
