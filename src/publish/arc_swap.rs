//! The cell for hosted targets, on [`arc_swap::ArcSwap`].
//!
//! A load writes one word of a node that belongs to its thread; the first load on a thread may
//! allocate that node, which is used again after the thread has ended.

use core::fmt;

use arc_swap::{ArcSwap, Guard};

use super::retire::RetireList;
use crate::sync::Arc;

/// See the [module](super).
pub(crate) struct SnapshotCell<T> {
    current: ArcSwap<T>,
    retired: RetireList<T>,
}

impl<T> SnapshotCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            current: ArcSwap::from_pointee(value),
            retired: RetireList::new(),
        }
    }

    /// The current snapshot, protected until the guard is dropped.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Replaces the snapshot by what `edit` makes of it, or leaves it where `edit` fails. `edit`
    /// runs again when another publication came between.
    ///
    /// What is retired and held by nobody is then freed: see [`reclaim`](Self::reclaim).
    pub(crate) fn rcu<E>(&self, mut edit: impl FnMut(&T) -> Result<T, E>) -> Result<(), E> {
        let mut current = self.current.load();
        loop {
            let next = Arc::new(edit(&current)?);
            // `previous` is a counted reference where the swap was made, for a guard on the old
            // snapshot is in hand; the cell's own count has become that of the retire list's entry.
            let previous = self.current.compare_and_swap(&*current, next);
            if Arc::ptr_eq(&previous, &current) {
                drop(current);
                self.retired.push(Guard::into_inner(previous));
                self.retired.sweep();
                return Ok(());
            }
            current = previous;
        }
    }

    /// Replaces the snapshot, whatever it is.
    pub(crate) fn replace(&self, next: T) {
        self.retired.push(self.current.swap(Arc::new(next)));
        self.retired.sweep();
    }

    /// Frees the retired snapshots that nobody holds, on this thread.
    pub(crate) fn reclaim(&self) {
        self.retired.sweep();
    }
}

impl<T: fmt::Debug> fmt::Debug for SnapshotCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCell")
            .field("current", &*self.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::Mutex,
        thread::{self, ThreadId},
    };

    use super::*;

    fn set<T>(cell: &SnapshotCell<T>, value: impl Fn() -> T) {
        let Ok(()) = cell.rcu(|_| Ok::<_, Infallible>(value()));
    }

    #[test]
    fn an_edit_that_fails_changes_nothing() {
        let cell = SnapshotCell::new(1);
        assert_eq!(cell.rcu(|_| Err("no")), Err("no"));
        assert_eq!(**cell.load(), 1);
        assert_eq!(cell.rcu(|n| Ok::<_, ()>(n + 1)), Ok(()));
        assert_eq!(**cell.load(), 2);
    }

    #[test]
    fn an_edit_runs_again_when_another_came_between() {
        let cell = SnapshotCell::new(1);
        let mut runs = 0;
        let edit = |n: &i32| {
            runs += 1;
            if runs == 1 {
                set(&cell, || 10);
            }
            Ok::<_, Infallible>(n + 1)
        };
        let Ok(()) = cell.rcu(edit);
        assert_eq!((**cell.load(), runs), (11, 2));
    }

    #[test]
    fn a_held_snapshot_outlives_its_replacement() {
        let inner = Arc::new(());
        let cell = SnapshotCell::new(Some(inner.clone()));
        let guard = cell.load();
        cell.replace(None);
        set(&cell, || None);
        assert!(guard.is_some());
        drop(guard);
        assert_eq!(Arc::strong_count(&inner), 2, "letting go must not free");
        cell.reclaim();
        assert_eq!(Arc::strong_count(&inner), 1);
    }

    #[test]
    fn more_guards_than_a_thread_has_slots_for() {
        let cell = SnapshotCell::new(0);
        let guards: Vec<_> = (1..100)
            .map(|n| {
                let guard = cell.load();
                cell.replace(n);
                guard
            })
            .collect();
        assert!(guards.iter().map(|guard| ***guard).eq(0..99));
    }

    /// Tells which thread dropped it.
    struct Tells<'a>(&'a Mutex<Vec<ThreadId>>);

    impl Drop for Tells<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
        }
    }

    #[test]
    fn only_writers_free() {
        const SNAPSHOTS: usize = if cfg!(miri) { 20 } else { 2_000 };
        let dropped = Mutex::new(Vec::new());
        let cell = SnapshotCell::new(Tells(&dropped));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..SNAPSHOTS).for_each(|_| set(&cell, || Tells(&dropped)));
                thread::current().id()
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while !writer_done(&dropped, SNAPSHOTS) {
                        let guard = cell.load();
                        thread::yield_now();
                        drop(guard);
                    }
                });
            }
            let writer = writer.join().unwrap();
            assert!(
                dropped
                    .lock()
                    .unwrap()
                    .iter()
                    .all(|&thread| thread == writer)
            );
        });
        drop(cell);
        assert_eq!(dropped.into_inner().unwrap().len(), SNAPSHOTS + 1);
    }

    /// Readers stop a few snapshots before the end, which may still be held then.
    fn writer_done(dropped: &Mutex<Vec<ThreadId>>, snapshots: usize) -> bool {
        dropped.lock().unwrap().len() + 4 >= snapshots
    }
}
