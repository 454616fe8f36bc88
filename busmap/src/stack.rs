//! [`Stack`]: a stack onto which many threads push, and which a thread takes whole.
//!
//! A push onto a stack that is not empty takes it whole too, and puts all of it back with the new
//! node on top. So only the thread that owns a node accesses it, and no node needs protection from
//! reclamation. The top is never compared with the address of a node, which might have been freed
//! and reused.

use alloc::boxed::Box;
use core::{marker::PhantomData, mem, ptr};

use crossbeam_utils::atomic::AtomicCell;

use crate::sync::{AtomicPtr, Ordering, ordering};

/// A lock-free stack. While a thread pushes, others may find fewer nodes than were pushed before.
///
/// # Invariants
///
/// *Owned*: `top` is null or the only pointer to a node that came from `Box::into_raw`, and the
/// same holds for the `below` of each node.
pub(crate) struct Stack<T> {
    top: AtomicPtr<Node<T>>,
    /// The stack owns values and passes them from thread to thread, as an atomic cell does.
    owns: PhantomData<AtomicCell<T>>,
}

/// A value, to be pushed onto a stack or taken from it.
pub(crate) struct Node<T> {
    pub(crate) value: T,
    below: *mut Node<T>,
}

impl<T> Node<T> {
    pub(crate) fn new(value: T) -> Box<Self> {
        Box::new(Self {
            value,
            below: ptr::null_mut(),
        })
    }
}

impl<T> Stack<T> {
    pub(crate) fn new() -> Self {
        Self {
            top: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// Puts `node` on top.
    pub(crate) fn push(&self, node: Box<Node<T>>) {
        let mut chain = Chain::EMPTY;
        chain.push(node);
        self.push_all(chain);
    }

    /// Puts a chain on top.
    ///
    /// If a round fails, another thread has succeeded.
    ///
    /// `Release` pairs with the `Acquire` in [`take`](Self::take). An exchange that fails shows
    /// that the stack is not empty, and its nodes are not read here: hence `Relaxed`.
    pub(crate) fn push_all(&self, mut chain: Chain<T>) {
        if chain.top.is_null() {
            return;
        }
        let released = ordering!(Release, "stack-push" => Relaxed);
        while (self.top)
            .compare_exchange(ptr::null_mut(), chain.top, released, Ordering::Relaxed)
            .is_err()
        {
            chain.append(self.take());
        }
        // INVARIANT: the pointer moved from the chain to the stack.
        mem::forget(chain);
    }

    /// Takes every node, the last pushed first.
    ///
    /// `Acquire` pairs with the `Release` in [`push`](Self::push): if the swap reads a node's
    /// address, it sees the content of the node and the nodes below it, which the pushing thread
    /// owned; if the push comes later, the node stays for the next take.
    pub(crate) fn take(&self) -> Chain<T> {
        // INVARIANT: the pointer moved from the stack to the chain.
        Chain {
            top: (self.top).swap(ptr::null_mut(), ordering!(Acquire, "stack-take" => Relaxed)),
            owns: PhantomData,
        }
    }
}

impl<T> Drop for Stack<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Nodes that one thread owns: an iterator over them, which frees the rest when it is dropped.
///
/// # Invariants
///
/// *Owned*, as for [`Stack`].
pub(crate) struct Chain<T> {
    top: *mut Node<T>,
    owns: PhantomData<T>,
}

impl<T> Chain<T> {
    pub(crate) const EMPTY: Self = Self {
        top: ptr::null_mut(),
        owns: PhantomData,
    };

    /// Puts `node` on top.
    pub(crate) fn push(&mut self, mut node: Box<Node<T>>) {
        // INVARIANT: `node` takes the place of `top`, which moves to its `below`.
        node.below = self.top;
        self.top = Box::into_raw(node);
    }

    /// Puts another chain below.
    fn append(&mut self, other: Self) {
        let mut end = &mut self.top;
        while !end.is_null() {
            // SAFETY: by *Owned* this is the only pointer to the node, and borrowed from the chain.
            end = unsafe { &mut (**end).below };
        }
        // INVARIANT: the pointer moved from the other chain to this one's last node.
        *end = other.top;
        mem::forget(other);
    }
}

impl<T> Iterator for Chain<T> {
    type Item = Box<Node<T>>;

    fn next(&mut self) -> Option<Box<Node<T>>> {
        if self.top.is_null() {
            return None;
        }
        // SAFETY: by *Owned* this is the only pointer to a box.
        let node = unsafe { Box::from_raw(self.top) };
        // INVARIANT: `below` moves up; the node's copy is overwritten before it is read again.
        self.top = node.below;
        Some(node)
    }
}

impl<T> Drop for Chain<T> {
    /// Frees every node, even if dropping a value unwinds.
    fn drop(&mut self) {
        while let Some(node) = self.next() {
            let rest = Rest(self);
            drop(node);
            mem::forget(rest);
        }
    }
}

/// Frees the rest of a chain while a destructor unwinds.
struct Rest<'c, T>(&'c mut Chain<T>);

impl<T> Drop for Rest<'_, T> {
    fn drop(&mut self) {
        self.0.for_each(drop);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        collections::BTreeSet,
        panic::{AssertUnwindSafe, catch_unwind},
        rc::Rc,
        thread,
    };

    use super::*;
    use crate::testing::size;

    #[test]
    fn takes_the_last_pushed_first() {
        let stack = Stack::new();
        (1..=3).for_each(|n| stack.push(Node::new(n)));
        let values: Vec<_> = stack.take().map(|node| node.value).collect();
        assert_eq!(values, [3, 2, 1]);
        assert!(stack.take().next().is_none());
    }

    #[test]
    fn dropping_a_chain_or_a_stack_frees_its_nodes() {
        let value = Rc::new(());
        let stack = Stack::new();
        (0..4).for_each(|_| stack.push(Node::new(value.clone())));
        let mut chain = stack.take();
        stack.push(Node::new(value.clone()));
        drop(chain.next());
        assert_eq!(Rc::strong_count(&value), 5);
        drop(chain);
        assert_eq!(Rc::strong_count(&value), 2);
        drop(stack);
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn a_destructor_that_unwinds_keeps_no_other_from_running() {
        struct Unwinds {
            _value: Rc<()>,
            unwinds: bool,
        }
        impl Drop for Unwinds {
            fn drop(&mut self) {
                assert!(!self.unwinds, "a destructor unwinds");
            }
        }
        let value = Rc::new(());
        let stack = Stack::new();
        (0..5).for_each(|n| {
            stack.push(Node::new(Unwinds {
                _value: value.clone(),
                unwinds: n == 2,
            }));
        });
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(stack)));
        assert!(dropped.is_err());
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn threads_lose_nothing_and_get_nothing_twice() {
        const EACH: usize = size(50_000, 15);
        let stack = Stack::new();
        let (stack, mut seen) = (&stack, BTreeSet::new());
        thread::scope(|scope| {
            let pushers: Vec<_> = (0..2)
                .map(|t| scope.spawn(move || (0..EACH).for_each(|n| stack.push(Node::new((t, n))))))
                .collect();
            while seen.len() < 2 * EACH {
                let done = pushers.iter().all(|p| p.is_finished());
                for node in stack.take() {
                    assert!(seen.insert(node.value), "{:?} came twice", node.value);
                }
                assert!(!done || seen.len() == 2 * EACH, "only {} came", seen.len());
                thread::yield_now();
            }
        });
    }

    /// A node is freed while another is pushed, and a third one gets its address.
    #[test]
    fn nodes_may_lie_where_others_were_freed() {
        const EACH: usize = size(50_000, 200);
        let stack = Stack::new();
        let taken = thread::scope(|scope| {
            scope.spawn(|| (0..EACH).for_each(|n| stack.push(Node::new(n))));
            let take_and_push = |n| {
                let taken = stack.take().count();
                stack.push(Node::new(n));
                taken
            };
            (0..EACH).map(take_and_push).sum::<usize>()
        });
        assert_eq!(taken + stack.take().count(), 2 * EACH);
    }
}
