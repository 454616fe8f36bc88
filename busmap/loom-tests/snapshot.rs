//! The slot cell's counted snapshot, in memory from the allocator.

use std::sync::Arc;

use super::{Bound::Unbounded, check, thread, watched::Watched};
use crate::publish::slots::{
    cell::SlotCell,
    counted::{Counted as _, CountedBox},
};

/// A value that is overwritten when it is freed, so loom detects a read that does not come before.
struct Value(Watched);

impl Value {
    fn snapshot(value: usize) -> CountedBox<Self> {
        CountedBox::new(Self(Watched::new(value)))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.write(usize::MAX);
    }
}

#[test]
fn a_load_against_a_publication() {
    fn run<const N: usize>(name: &str) {
        check(name, 50, Unbounded, || {
            let cell = Arc::new(SlotCell::<_, N>::new(Value::snapshot(0)));
            let other = cell.clone();
            let reader = thread::spawn(move || assert!(other.load().0.read() <= 1));
            cell.replace(Value::snapshot(1));
            cell.retired().sweep();
            reader.join().expect("the reader panicked");
        });
    }
    run::<1>("snapshot, load, publish");
    run::<0>("snapshot, load, publish, no slots");
}

/// One writer publishes a snapshot, another replaces it, and a third frees it.
#[test]
fn three_writers_of_one_snapshot() {
    check("snapshot, publish, replace, sweep", 200, Unbounded, || {
        let cell = Arc::new(SlotCell::<_, 0>::new(Value::snapshot(0)));
        let writers = [1, 2].map(|value| {
            let cell = cell.clone();
            thread::spawn(move || cell.replace(Value::snapshot(value)))
        });
        cell.retired().sweep();
        for writer in writers {
            writer.join().expect("a writer panicked");
        }
    });
}

#[test]
fn a_failed_publication_frees_its_snapshot() {
    check("snapshot, two updates", 250, Unbounded, || {
        let cell = Arc::new(SlotCell::<_, 2>::new(Value::snapshot(0)));
        let update = |cell: &SlotCell<CountedBox<Value>, 2>| loop {
            let current = cell.load();
            let next = Value::snapshot(current.0.read() + 1);
            if cell.publish(&current, next) {
                break;
            }
        };
        let other = cell.clone();
        let other = thread::spawn(move || update(&other));
        update(&cell);
        other.join().expect("the other panicked");
        assert_eq!(cell.load().0.read(), 2);
    });
}

/// The last of several holders frees the value, after the reads of the others.
#[test]
fn the_last_holder_frees() {
    check("snapshot, two holders", 3, Unbounded, || {
        let snapshot = Value::snapshot(7);
        let ptr = snapshot.into_raw();
        // SAFETY: this function owns the reference.
        unsafe { CountedBox::<Value>::count(ptr) };
        // SAFETY: one of the two references.
        let ours = unsafe { CountedBox::<Value>::from_raw(ptr) };
        // SAFETY: the other one.
        let theirs = unsafe { CountedBox::<Value>::from_raw(ptr) };
        let other = thread::spawn(move || assert_eq!(theirs.0.read(), 7));
        assert_eq!(ours.0.read(), 7);
        drop(ours);
        other.join().expect("the other panicked");
    });
}

/// A thread that finds that it is the last holder has exclusive access to the value.
#[test]
fn the_last_holder_is_alone() {
    check("snapshot, is_last", 3, Unbounded, || {
        let ptr = Value::snapshot(7).into_raw();
        // SAFETY: this function owns the reference.
        unsafe { CountedBox::<Value>::count(ptr) };
        // SAFETY: one of the two references.
        let ours = unsafe { CountedBox::<Value>::from_raw(ptr) };
        let theirs = Addr(ptr);
        let other = thread::spawn(move || theirs.read_and_give_up());
        if ours.is_last() {
            ours.0.write(8);
        }
        other.join().expect("the other panicked");
        assert!(ours.is_last());
    });
}

/// A reference as a guard holds it.
struct Addr(*mut Value);

// SAFETY: a counted reference can be given up from any thread.
unsafe impl Send for Addr {}

impl Addr {
    fn read_and_give_up(self) {
        // SAFETY: the reference is ours.
        assert_eq!(unsafe { &*self.0 }.0.read(), 7);
        // SAFETY: the reference is ours, and the other thread has one.
        unsafe { CountedBox::<Value>::give_up(self.0) };
    }
}

/// A reader that counts its own reference, which outlasts the guard.
#[test]
fn a_hold_against_a_publication() {
    fn run<const N: usize>(name: &str) {
        check(name, 50, Unbounded, || {
            let cell = Arc::new(SlotCell::<_, N>::new(Value::snapshot(0)));
            let other = cell.clone();
            let reader = thread::spawn(move || {
                let held = other.load_full();
                assert!(held.0.read() <= 1);
                other.retired().sweep();
                assert!(held.0.read() <= 1);
            });
            cell.replace(Value::snapshot(1));
            cell.retired().sweep();
            reader.join().expect("the reader panicked");
        });
    }
    run::<1>("snapshot, hold, publish");
    run::<0>("snapshot, hold, publish, no slots");
}
