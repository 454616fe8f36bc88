//! `FairLock`: one context at a time is inside, and all waiters enter, in their order.

use std::sync::Arc;

use ax_errno::AxError;

use super::{
    Bound::{Preemptions, Unbounded},
    check, thread,
    watched::Watched,
};
use crate::fair_lock::FairLock;

/// A number in memory that is watched for races.
type Counter = FairLock<Watched>;

fn counter() -> Arc<Counter> {
    Arc::new(FairLock::new(Watched::new(0)))
}

/// Enters, appends `digit` to the value, and leaves. Then time passes: a waiter that this context
/// has missed checks the lock by itself.
fn append(lock: &Counter, digit: usize) {
    let inside = lock.enter().expect("nothing re-enters");
    inside.write(inside.read() * 10 + digit);
    drop(inside);
    lock.nap_ends();
}

fn seen(lock: &Counter) -> usize {
    lock.enter().expect("nothing re-enters").read()
}

/// Waits until `is_so`.
fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

#[test]
fn two_contexts_exclude_each_other() {
    check("two at a lock", 20, Unbounded, || {
        let lock = counter();
        let other = lock.clone();
        let other = thread::spawn(move || append(&other, 1));
        append(&lock, 1);
        other.join().expect("the other panicked");
        assert_eq!(seen(&lock), 11);
        assert_eq!(lock.waiting(), 0);
    });
}

#[test]
fn a_waiter_that_is_seen_is_woken() {
    check("a waiter that is seen", 3, Unbounded, || {
        let lock = counter();
        let inside = lock.enter().expect("it is free");
        let other = lock.clone();
        let other = thread::spawn(move || append(&other, 1));
        wait_until(|| lock.waiting() == 1);
        drop(inside);
        // No time passes here: only the bell wakes it.
        other.join().expect("the other panicked");
        assert_eq!(seen(&lock), 1);
    });
}

#[test]
fn a_waiter_that_is_seen_is_not_passed() {
    check("a waiter and a later one", 100, Unbounded, move || {
        let lock = counter();
        let inside = lock.enter().expect("it is free");
        let other = lock.clone();
        let other = thread::spawn(move || append(&other, 1));
        wait_until(|| lock.waiting() == 1);
        drop(inside);
        if let Some(inside) = lock.try_enter() {
            assert_eq!(inside.read(), 1, "the other has been inside");
        }
        lock.nap_ends();
        other.join().expect("the other panicked");
        assert_eq!(seen(&lock), 1);
    });
}

#[test]
fn each_of_two_waiters_gets_in() {
    check("two waiters", 100, Preemptions(3), || {
        let lock = counter();
        let inside = lock.enter().expect("it is free");
        let others = [1, 1].map(|digit| {
            let other = lock.clone();
            thread::spawn(move || append(&other, digit))
        });
        wait_until(|| lock.waiting() == 2);
        drop(inside);
        for other in others {
            other.join().expect("another one panicked");
        }
        assert_eq!(seen(&lock), 11);
    });
}

#[test]
fn only_a_reentry_is_refused_as_busy() {
    check("re-entry", 20, Unbounded, || {
        let lock = counter();
        let other = lock.clone();
        let reenters = |lock: &Counter| {
            let inside = lock.enter().expect("this context is outside");
            assert_eq!(lock.enter().err(), Some(AxError::ResourceBusy));
            drop(inside);
            lock.nap_ends();
        };
        let other = thread::spawn(move || reenters(&other));
        reenters(&lock);
        other.join().expect("the other panicked");
    });
}
