//! The stack: a taken node is complete, and is taken only once.

use std::sync::Arc;

use super::{Bound::Unbounded, check, thread, watched::Watched};
use crate::stack::{Node, Stack};

/// Takes all nodes, and returns the sum of their values.
fn take(stack: &Stack<Watched>) -> usize {
    stack.take().map(|node| node.value.read()).sum()
}

#[test]
fn a_pushed_node_is_taken_once_and_whole() {
    check("push, take", 4, Unbounded, || {
        let stack = Arc::new(Stack::new());
        let pusher = stack.clone();
        let pusher = thread::spawn(move || pusher.push(Node::new(Watched::new(1))));
        let early = take(&stack);
        pusher.join().expect("the pusher panicked");
        assert_eq!(early + take(&stack), 1);
    });
}

#[test]
fn the_nodes_further_down_are_whole_too() {
    check("two pushers, take", 50, Unbounded, || {
        let stack = Arc::new(Stack::new());
        let pushers = [1, 2].map(|value| {
            let stack = stack.clone();
            thread::spawn(move || stack.push(Node::new(Watched::new(value))))
        });
        let early = take(&stack);
        for pusher in pushers {
            pusher.join().expect("a pusher panicked");
        }
        assert_eq!(early + take(&stack), 3);
    });
}

#[test]
fn two_takers_share_the_nodes() {
    check("push, two takers", 50, Unbounded, || {
        let stack = Arc::new(Stack::new());
        stack.push(Node::new(Watched::new(1)));
        let (pusher, taker) = (stack.clone(), stack.clone());
        let pusher = thread::spawn(move || pusher.push(Node::new(Watched::new(2))));
        let taker = thread::spawn(move || take(&taker));
        let ours = take(&stack);
        pusher.join().expect("the pusher panicked");
        let theirs = taker.join().expect("the taker panicked");
        assert_eq!(ours + theirs + take(&stack), 3);
    });
}

/// A sweep puts back nodes that are still in use.
#[test]
fn nodes_that_are_put_back_are_taken_once_and_whole() {
    check("push, take and put back", 40, Unbounded, || {
        let stack = Arc::new(Stack::new());
        stack.push(Node::new(Watched::new(1)));
        let (pusher, sweeper) = (stack.clone(), stack.clone());
        let pusher = thread::spawn(move || pusher.push(Node::new(Watched::new(2))));
        let sweeper = thread::spawn(move || sweeper.push_all(sweeper.take()));
        pusher.join().expect("the pusher panicked");
        sweeper.join().expect("the sweeper panicked");
        assert_eq!(take(&stack), 3);
    });
}
