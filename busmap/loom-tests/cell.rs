//! The slot cell: a loaded snapshot was published and is not freed. A reader never frees. In the end everything is
//! freed.

use std::sync::Arc;

use super::{
    Bound::{self, Preemptions, Unbounded},
    check,
    nodes::{Pool, Reference, role},
    thread,
};
use crate::publish::slots::cell::SlotCell;
#[cfg(loom)]
use crate::sync::{interrupt_after, interrupt_never};

/// A cell with `N` slots and the pool of its snapshots.
struct Cell<const N: usize> {
    pool: &'static Pool,
    cell: SlotCell<Reference, N>,
}

impl<const N: usize> Cell<N> {
    /// A cell whose snapshot holds 0.
    fn new() -> Arc<Self> {
        let pool = Pool::new();
        let first = pool.snapshot(0).expect("every node is free");
        Arc::new(Self {
            pool,
            cell: SlotCell::new(first),
        })
    }

    /// Publishes a snapshot that holds `content`, if there is a free node.
    ///
    /// It does not load first, because the acquire of a load would hide a missing acquire of the publication.
    fn set(&self, content: usize) -> bool {
        let Some(next) = self.pool.snapshot(content) else {
            return false;
        };
        self.cell.replace(next);
        self.cell.retired().sweep();
        true
    }

    /// Publishes as `rcu` does, and returns the content of the published snapshot.
    fn rcu(&self) -> Option<usize> {
        loop {
            let current = self.cell.load();
            let content = current.read() + 1;
            let next = self.pool.snapshot(content)?;
            if self.cell.publish(&current, next) {
                drop(current);
                self.cell.retired().sweep();
                return Some(content);
            }
        }
    }

    /// Loads and reads as a vCPU does.
    fn read(&self) -> usize {
        role::reader(|| self.cell.load().read())
    }

    /// Frees the cell, which no thread uses any more, and checks that everything was freed.
    fn finish(self: Arc<Self>) {
        let Ok(Self { pool, cell }) = Arc::try_unwrap(self) else {
            panic!("a thread still has the cell");
        };
        drop(cell);
        pool.assert_all_free();
    }
}

/// Runs `threads` concurrently on one cell, and checks that everything was freed.
fn together<const N: usize>(threads: &[fn(&Cell<N>)]) {
    let cell = Cell::<N>::new();
    let spawn = |&run: &fn(&Cell<N>)| {
        let cell = cell.clone();
        thread::spawn(move || run(&cell))
    };
    let threads: Vec<_> = threads.iter().map(spawn).collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().expect("a thread panicked"));
    cell.finish();
}

fn load_once<const N: usize>(cell: &Cell<N>) {
    assert!(cell.read() <= 2);
}

/// A second load returns the snapshot of the first load, or a newer one.
fn load_twice<const N: usize>(cell: &Cell<N>) {
    let first = cell.read();
    assert!(cell.read() >= first, "a load went back in time");
}

fn publish_once<const N: usize>(cell: &Cell<N>) {
    assert!(cell.set(1));
}

/// One of two writers finds no free node if the other and a reader hold both.
fn publish_if_free<const N: usize>(cell: &Cell<N>) {
    cell.set(1);
}

fn publish_twice<const N: usize>(cell: &Cell<N>) {
    assert!(cell.set(1));
    cell.set(2);
}

/// A load inside another. The guard of the outer load is dropped first.
fn nested<const N: usize>(cell: &Cell<N>) {
    role::reader(|| {
        let first = cell.cell.load();
        let second = cell.cell.load();
        assert!(second.read() >= first.read());
        drop(first);
        second.read();
    });
}

/// A guard that is held while the writer continues.
fn hold<const N: usize>(cell: &Cell<N>) {
    role::reader(|| {
        let guard = cell.cell.load();
        let content = guard.read();
        thread::yield_now();
        assert_eq!(guard.read(), content);
    });
}

/// A reader's own reference, which outlasts the guard under which it was counted.
fn hold_counted<const N: usize>(cell: &Cell<N>) {
    role::reader(|| {
        let held = cell.cell.load_full();
        assert!(held.read() <= 1);
    });
}

fn rcu_once<const N: usize>(cell: &Cell<N>) {
    cell.rcu();
}

fn reclaim<const N: usize>(cell: &Cell<N>) {
    cell.cell.retired().sweep();
}

/// A model that runs these threads concurrently.
fn run<const N: usize>(
    name: &str,
    at_least: usize,
    bound: Bound,
    threads: &'static [fn(&Cell<N>)],
) {
    check(name, at_least, bound, move || together::<N>(threads));
}

#[test]
fn a_load_against_a_publication() {
    run::<1>(
        "load, publish",
        1_000,
        Unbounded,
        &[load_once, publish_once],
    );
}

#[test]
fn two_loads_against_two_publications() {
    let threads: &[_] = &[load_twice, publish_twice];
    run::<1>("load twice, publish twice", 20_000, Preemptions(4), threads);
}

#[test]
fn two_readers_and_a_writer() {
    let threads: &[_] = &[load_once, load_once, publish_once];
    run::<2>("two readers, a writer", 20_000, Preemptions(3), threads);
}

#[test]
fn two_writers_and_a_reader() {
    let threads: &[_] = &[publish_if_free, rcu_once, load_once];
    run::<1>("two writers, a reader", 20_000, Preemptions(3), threads);
}

#[test]
fn a_guard_that_outlives_two_publications() {
    run::<1>(
        "hold, publish twice",
        20_000,
        Unbounded,
        &[hold, publish_twice],
    );
}

#[test]
fn a_counted_hold_against_a_publication() {
    let threads: &[_] = &[hold_counted, publish_once];
    run::<1>("counted hold, publish", 2_000, Unbounded, threads);
    let threads: &[_] = &[hold_counted, publish_once];
    run::<0>("counted hold, publish, no slots", 1_000, Unbounded, threads);
}

#[test]
fn a_load_that_finds_no_slot() {
    run::<0>("no slots", 200, Unbounded, &[load_once, publish_once]);
}

#[test]
fn loads_that_find_no_slot() {
    let threads = &[load_twice, publish_twice];
    run::<0>("no slots, twice", 100_000, Unbounded, threads);
}

#[test]
fn two_loads_that_find_no_slot() {
    let threads: &[_] = &[load_once, load_once, publish_once];
    run::<0>("no slots, two readers", 15_000, Preemptions(3), threads);
}

#[test]
fn loads_that_find_one_slot_for_the_two_of_them() {
    let threads: &[_] = &[load_once, load_once, publish_once];
    run::<1>("one slot, two readers", 20_000, Preemptions(3), threads);
}

#[test]
fn a_load_inside_another() {
    run::<0>(
        "nested, no slots",
        3_000,
        Unbounded,
        &[nested, publish_once],
    );
    run::<1>(
        "nested, one slot",
        8_000,
        Unbounded,
        &[nested, publish_once],
    );
    run::<2>(
        "nested, two slots",
        5_000,
        Unbounded,
        &[nested, publish_once],
    );
}

#[test]
fn a_second_sweeper() {
    let threads = &[load_once, publish_once, reclaim];
    run::<1>("a second sweeper", 10_000, Preemptions(3), threads);
    let threads = &[load_once, publish_once, reclaim];
    run::<0>(
        "a second sweeper, no slots",
        20_000,
        Preemptions(3),
        threads,
    );
}

/// Two updates at once: both are made, one on top of the other.
#[test]
fn two_updates() {
    check("two updates", 8_000, Unbounded, || {
        let cell = Cell::<1>::new();
        let other = cell.clone();
        let thread = thread::spawn(move || other.rcu());
        let ours = cell.rcu();
        let theirs = thread.join().expect("the other update panicked");
        // One of the two finds no free node if the other holds it.
        let made = ours.iter().chain(&theirs).count();
        assert!(made >= 1);
        assert_ne!(ours, theirs);
        assert_eq!(cell.read(), made);
        cell.finish();
    });
}

/// A guard that another thread drops. This may be the last access to the cell.
#[test]
fn a_guard_that_is_sent_to_another_thread() {
    check("guard sent", 5, Unbounded, || {
        let pool = Pool::new();
        let first = pool.snapshot(0).expect("every node is free");
        let owner = Box::into_raw(Box::new(SlotCell::<_, 1>::new(first)));
        // SAFETY: the box is freed at the end, after every use of this.
        let cell: &'static SlotCell<_, 1> = unsafe { &*owner };
        let guard = role::reader(|| cell.load());
        let reader = thread::spawn(move || {
            role::reader(|| {
                assert_eq!(guard.read(), 0);
                drop(guard);
            });
        });
        cell.replace(pool.snapshot(1).expect("a node is free"));
        cell.retired().sweep();
        reader.join().expect("the reader panicked");
        // SAFETY: it came from a box, and no thread uses the cell any more.
        drop(unsafe { Box::from_raw(owner) });
        pool.assert_all_free();
    });
}

/// Two readers use one slot, one after the other. The sweep finds the slot cleared by the second.
#[test]
fn a_slot_that_another_reader_has_next() {
    check("one slot in turn", 1_000, Preemptions(3), || {
        let cell = Cell::<1>::new();
        let readers = [(); 2].map(|()| {
            let cell = cell.clone();
            thread::spawn(move || load_once(&cell))
        });
        let next = cell.pool.snapshot(1).expect("a node is free");
        cell.cell.replace(next);
        let [first, second] = readers;
        second.join().expect("a reader panicked");
        // Only the cell can order the sweep after the first reader, which is not joined yet.
        cell.cell.retired().sweep();
        first.join().expect("a reader panicked");
        cell.finish();
    });
}

#[cfg(not(loom))]
use std::sync::Arc as SharedCell;

/// loom's `Arc`, so loom sees which thread is the last user.
#[cfg(loom)]
use loom::sync::Arc as SharedCell;

/// The last user of the cell, a reader or a writer, drops it.
#[test]
fn a_cell_that_its_last_user_drops() {
    check("drop with the last guard", 30, Unbounded, || {
        let cell = Cell::<1>::new();
        let pool = cell.pool;
        let cell = SharedCell::new(Arc::into_inner(cell).expect("no other thread has it").cell);
        let other = cell.clone();
        let reader = thread::spawn(move || {
            let guard = role::reader(|| other.load());
            guard.read();
            role::reader(|| drop(guard));
            drop(other);
        });
        cell.replace(pool.snapshot(1).expect("a node is free"));
        drop(cell);
        reader.join().expect("the reader panicked");
        pool.assert_all_free();
    });
}

/// The largest number of steps of a load. An interrupt can come between any two steps.
#[cfg(loom)]
const STEPS: usize = 12;

/// A load that is interrupted at each of its steps.
#[cfg(loom)]
fn interrupted<const N: usize>(name: &str, interrupt: fn(&Cell<N>)) {
    for skipped in 0..STEPS {
        check(
            &format!("{name}, step {skipped}"),
            100,
            Unbounded,
            move || {
                let cell = Cell::<N>::new();
                let writer = cell.clone();
                let writer = thread::spawn(move || publish_if_free(&writer));
                let inner = cell.clone();
                interrupt_after(skipped, move || interrupt(&inner));
                assert!(cell.read() <= 1);
                // The interrupt came, or the load had fewer steps.
                interrupt_never();
                writer.join().expect("the writer panicked");
                cell.finish();
            },
        );
    }
}

#[cfg(loom)]
#[test]
fn a_load_that_another_interrupts() {
    interrupted::<2>("load in a load, two slots", load_once);
    interrupted::<1>("load in a load, one slot", load_once);
    interrupted::<0>("load in a load, no slots", load_once);
}

/// An interrupt handler that publishes and sweeps in the middle of the load that it interrupts.
#[cfg(loom)]
#[test]
fn a_load_that_a_change_interrupts() {
    fn publish<const N: usize>(cell: &Cell<N>) {
        role::writer(|| publish_if_free(cell));
    }
    interrupted::<2>("change in a load, two slots", publish);
    interrupted::<1>("change in a load, one slot", publish);
    interrupted::<0>("change in a load, no slots", publish);
}
