//! [`Turns`]: one context at a time, in the order of their requests.

use core::num::NonZero;

use crate::{
    refusal::Refusal,
    sync::{Monitor, mutant, running_context},
};

/// The identity of the running context: none, if contexts cannot be distinguished.
pub(crate) type ContextId = fn() -> Option<NonZero<usize>>;

/// Turns that contexts take, one at a time, in the order of their requests.
///
/// No lock is held during a turn, so a turn that unwinds ends like any other.
pub(crate) struct Turns {
    state: Monitor<State>,
    context_id: ContextId,
}

/// # Invariants
///
/// - *Alone*: `now <= next`; the turn with the number `now` is active, or is the next one. A [`Turn`] has that number,
///   and increments `now` when it ends.
/// - *Holder*: the context whose turn it is, while there is a [`Turn`] and contexts can be distinguished.
#[derive(Debug)]
struct State {
    /// The number of the next request.
    next: u64,
    now: u64,
    holder: Option<NonZero<usize>>,
}

impl Turns {
    pub(crate) fn new(context_id: ContextId) -> Self {
        let state = State {
            next: 0,
            now: 0,
            holder: None,
        };
        Self {
            state: Monitor::new(state),
            context_id,
        }
    }

    /// Waits until it is this context's turn.
    ///
    /// # Errors
    ///
    /// [`Refusal::Reentrant`] if it already is this context's turn.
    pub(crate) fn take(&self) -> Result<Turn<'_>, Refusal> {
        let context = running_context(self.context_id);
        let number = self.state.change(|state| state.ask(context))?;
        self.state.wait_for(|state| {
            let is_next = state.now == number || mutant("turns-at-once");
            // INVARIANT: *Holder*.
            is_next.then(|| state.holder = context)
        });
        // INVARIANT: *Alone*.
        Ok(Turn { turns: self })
    }
}

impl State {
    /// Returns a unique number for the context's request.
    fn ask(&mut self, context: Option<NonZero<usize>>) -> Result<u64, Refusal> {
        if context.is_some() && self.holder == context {
            return Err(Refusal::Reentrant);
        }
        let number = self.next;
        // INVARIANT: *Alone*. It does not wrap.
        self.next += 1;
        Ok(number)
    }
}

/// A turn, until it is dropped.
#[must_use]
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.state.change(|state| {
            // INVARIANT: *Holder*, *Alone*.
            state.holder = None;
            state.now += 1;
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Mutex,
        thread,
    };

    use super::*;

    fn unknown() -> Option<NonZero<usize>> {
        None
    }

    #[test]
    fn a_turn_within_a_turn_is_refused() {
        let turns = Turns::new(unknown);
        let turn = turns.take().unwrap();
        assert_eq!(turns.take().err(), Some(Refusal::Reentrant));
        drop(turn);
        assert!(turns.take().is_ok());
    }

    #[test]
    fn a_turn_that_unwinds_ends() {
        let turns = Turns::new(unknown);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _turn = turns.take().unwrap();
            panic!("in its turn");
        }));
        assert!(unwound.is_err());
        assert!(turns.take().is_ok());
    }

    /// Each waiter starts to wait after the one before.
    #[test]
    fn waiters_take_turns_in_the_order_of_their_requests() {
        const WAITERS: u64 = 8;
        let turns = Turns::new(unknown);
        let order = Mutex::new(Vec::new());
        let first = turns.take().unwrap();
        thread::scope(|scope| {
            for waiter in 0..WAITERS {
                scope.spawn({
                    let (turns, order) = (&turns, &order);
                    move || {
                        let _turn = turns.take().unwrap();
                        order.lock().unwrap().push(waiter);
                    }
                });
                let asked = |state: &mut State| (state.next == waiter + 2).then_some(());
                while turns.state.change(asked).is_none() {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert!(order.into_inner().unwrap().into_iter().eq(0..WAITERS));
    }
}
