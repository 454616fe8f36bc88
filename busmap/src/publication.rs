//! Publication of tables, in turns and with calls of the listener if there is one.

use alloc::boxed::Box;
use core::{num::NonZero, panic::AssertUnwindSafe};

use crate::{
    bus::Handlers,
    difference::Difference,
    listener::{Listener, Listening},
    refusal::Refusal,
    registry::Registry,
    sync::{Arc, mutant},
    tables::Tables,
};

/// Listening to changes.
impl<F: Handlers> Registry<F> {
    /// Sets the listener, in place of an earlier one. From now on the registry calls it for each change: see
    /// [`Listener`].
    ///
    /// The registry does not call it for devices that are already registered, or when the registry is dropped. With a
    /// listener, changes are made one at a time, and each compares the tables before it with those after it. Dispatches
    /// and lookups run as without a listener.
    ///
    /// The registry holds an `Arc` of the listener. So the listener must hold a [`Weak`](alloc::sync::Weak) to the
    /// registry, not an [`Arc`](alloc::sync::Arc), as a handler does.
    #[must_use]
    pub fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        self.with_listener_and_context_id(listener, || None)
    }

    /// As [`with_listener`](Self::with_listener), for a front end that can distinguish contexts on bare metal, so
    /// that a change from inside the listener is refused there too. Elsewhere contexts are threads, and `context_id`
    /// is not called.
    #[doc(hidden)]
    #[must_use]
    pub fn with_listener_and_context_id(
        self,
        listener: Arc<dyn Listener>,
        context_id: fn() -> Option<NonZero<usize>>,
    ) -> Self {
        let listening = Box::new(Listening::new(listener, context_id));
        Self {
            listening: Some(AssertUnwindSafe(listening)),
            ..self
        }
    }

    /// Publishes the tables that `edit` returns, or nothing if it fails. Frees nothing.
    ///
    /// Without a listener `edit` runs again if another publication was first.
    pub(crate) fn publish_tables<E: From<Refusal>>(
        &self,
        edit: impl FnMut(&Tables<F>) -> Result<Tables<F>, E>,
    ) -> Result<(), E> {
        match &self.listening {
            None => self.tables.rcu(edit),
            Some(listening) => self.publish_and_tell(listening, edit),
        }
    }

    /// Waits for its turn, publishes, and calls the listener before and after.
    fn publish_and_tell<E: From<Refusal>>(
        &self,
        listening: &Listening,
        edit: impl FnMut(&Tables<F>) -> Result<Tables<F>, E>,
    ) -> Result<(), E> {
        let turn = listening.turn()?;
        let mut difference = Difference::none();
        // All changes of a shared registry take turns: no other change is published between the load of the tables and
        // the exchange, and `before` is called once.
        self.tables.rcu_judged(edit, |old, new| {
            difference = Difference::between(old, new)?;
            if mutant("told-behind") {
                return Ok(());
            }
            Ok(listening.before(&difference)?)
        })?;
        if mutant("told-behind") {
            listening.before(&difference)?;
        }
        if mutant("told-late") {
            drop(turn);
            listening.after(&difference);
            return Ok(());
        }
        listening.after(&difference);
        drop(turn);
        Ok(())
    }
}
