//! [`Listener`]: an observer of a registry's changes.

use core::fmt;

use crate::{
    difference::Difference,
    refusal::Refusal,
    sync::Arc,
    turns::{ContextId, Turn, Turns},
    veto::Veto,
};

/// An observer of a registry: it is called before and after each change is published. It can move KVM's ioeventfds,
/// memory slots and other address-dependent resources together with a device.
/// [`with_listener`](crate::Registry::with_listener) sets it.
///
/// The thread that makes a change calls [`before`](Self::before), publishes the change, and calls
/// [`after`](Self::after) with the same [`Difference`].
///
/// # Guarantees
///
/// - Changes are made one at a time, in the order of their requests: no other change is made between a call of `before`
///   and the return of `after`. So the listener gets differences in the order of their publication. A list to which it
///   applies each difference always contains all mappings.
/// - When `before` has succeeded, the change is published and `after` is called: nothing can refuse it any more. (Two
///   objects of fixed size are allocated in between; if such an allocation fails, the program aborts: see
///   [`Registry`](crate::Registry#allocation-failures).)
/// - A method that makes a change returns after `after` has returned.
/// - Dispatches and lookups do not wait: they run as without a listener.
///
/// The listener is not called for a change that is refused for another reason, or for a change in which no device loses
/// or gets a span, such as the addition of a device without spans.
///
/// # Work in each call
///
/// In `before` a listener prepares everything that the guest needs at the new address of a device. In `after` it
/// removes everything that must be gone from the old address when the change returns. A doorbell that is registered at
/// the new address in `before`, and unregistered at the old one in `after`, is always present at the device's address.
/// Between the two calls it rings at both addresses; when the change has returned, only at the new one.
///
/// All other changes wait while a listener runs. So `after` should only record work that takes long and needs no order,
/// such as a wait until vCPUs have released a resource. The caller does this work when the change has returned.
///
/// In `after` the device need not be quiescent: vCPUs may still be inside it through older tables. See
/// [`Removed`](crate::Removed).
///
/// # Restrictions
///
/// - Change the registry: that is refused with [`Refusal::Reentrant`], also from inside the handler of a device to
///   which the listener dispatches. (On bare metal only a front end can distinguish contexts; without one such a change
///   deadlocks.)
/// - Wait for something that may wait for a change, such as a lock that a handler holds while it moves its device.
///
/// On bare metal an interrupt handler must not make a change while it interrupts another change.
///
/// # Panics
///
/// If `before` unwinds, so does the change, and nothing is published. If `after` unwinds, so does the
/// change, which is published. Either way the next change is made as usual.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use busmap::{Device, Difference, Handlers, Listener, Port, Refusal, Registry, Span, Veto};
///
/// enum Nothing {}
///
/// impl Handlers for Nothing {
///     type Mmio = ();
///     type Port = ();
///     type SysReg = ();
///     type Tag = ();
/// }
///
/// /// The addresses of doorbells; at most one.
/// #[derive(Default)]
/// struct Doorbells(Mutex<Vec<Span>>);
///
/// impl Listener for Doorbells {
///     fn before(&self, difference: &Difference) -> Result<(), Veto> {
///         let mut places = self.0.lock().unwrap();
///         if places.len() + difference.mapped().len() > 1 + difference.unmapped().len() {
///             return Err(Veto::new("there is one doorbell only"));
///         }
///         places.extend(difference.mapped().iter().map(|new| new.span));
///         Ok(())
///     }
///
///     fn after(&self, difference: &Difference) {
///         let is_old = |place: &Span| difference.unmapped().iter().any(|old| old.span == *place);
///         self.0.lock().unwrap().retain(|place| !is_old(place));
///     }
/// }
///
/// let doorbells = Arc::new(Doorbells::default());
/// let registry = Registry::<Nothing>::new().with_listener(doorbells.clone());
/// let (here, there) = (Span::new(0, 7).unwrap(), Span::new(8, 15).unwrap());
/// let device = || Device::new(()).on::<Port>(Arc::new(()));
/// let id = registry.add::<Port>(device(), here)?;
/// registry.move_to::<Port>(id, here, there)?;
/// assert_eq!(*doorbells.0.lock().unwrap(), [there]);
///
/// let refused = registry.add::<Port>(device(), here).unwrap_err().refusal;
/// assert_eq!(refused, Refusal::Vetoed(Veto::new("there is one doorbell only")));
/// # Ok::<(), Refusal>(())
/// ```
pub trait Listener: Send + Sync {
    /// A change is about to be published.
    ///
    /// # Errors
    ///
    /// A [`Veto`]: nothing is published, and the change is refused with [`Refusal::Vetoed`]. The listener itself undoes
    /// what it did in this call: it is not called again for this change.
    fn before(&self, difference: &Difference) -> Result<(), Veto>;

    /// The change is published.
    fn after(&self, difference: &Difference);
}

/// A listener, and the turns that changes take for it.
pub(crate) struct Listening {
    listener: Arc<dyn Listener>,
    turns: Turns,
}

impl Listening {
    pub(crate) fn new(listener: Arc<dyn Listener>, context_id: ContextId) -> Self {
        Self {
            listener,
            turns: Turns::new(context_id),
        }
    }

    /// Waits for the turn to make a change.
    ///
    /// # Errors
    ///
    /// [`Refusal::Reentrant`].
    pub(crate) fn turn(&self) -> Result<Turn<'_>, Refusal> {
        self.turns.take()
    }

    /// Reports a change that is to be published.
    ///
    /// # Errors
    ///
    /// [`Refusal::Vetoed`].
    pub(crate) fn before(&self, difference: &Difference) -> Result<(), Refusal> {
        if difference.is_empty() {
            return Ok(());
        }
        self.listener.before(difference).map_err(Refusal::Vetoed)
    }

    /// Reports the change that was published.
    pub(crate) fn after(&self, difference: &Difference) {
        if !difference.is_empty() {
            self.listener.after(difference);
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}
