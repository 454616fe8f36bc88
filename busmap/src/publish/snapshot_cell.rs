//! [`SnapshotCell`]: a cell of the chosen kind, and its version.

use core::fmt;

use super::{
    chosen::{Cell, RetireList, Shared, SnapshotGuard},
    version::Version,
};
use crate::sync::{Arc, mutant};

/// The published snapshot. See the [module](super).
pub(crate) struct SnapshotCell<T> {
    pub(super) cell: Cell<T>,
    pub(super) version: Version,
}

impl<T> SnapshotCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            cell: Cell::new(Shared::new(value)),
            version: Version::first(),
        }
    }

    /// The current snapshot.
    #[inline]
    pub(crate) fn load(&self) -> SnapshotGuard<'_, T> {
        self.cell.load()
    }

    /// Replaces the snapshot by the result of `edit`, or leaves it if `edit` fails. `edit` runs again if another
    /// publication was first. Frees nothing: see [`reclaim`](Self::reclaim).
    pub(crate) fn rcu<E>(&self, edit: impl FnMut(&T) -> Result<T, E>) -> Result<(), E> {
        self.rcu_judged(edit, |_, _| Ok(()))
    }

    /// As [`rcu`](Self::rcu), but calls `judge` with the old and the new snapshot just before it publishes. If `judge`
    /// succeeds, only another publication can prevent this one.
    #[inline]
    pub(crate) fn rcu_judged<E>(
        &self,
        mut edit: impl FnMut(&T) -> Result<T, E>,
        mut judge: impl FnMut(&T, &T) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let current = self.load();
            if mutant("rcu-unchecked") {
                self.replace(edit(&current)?);
                return Ok(());
            }
            let next = Shared::new(edit(&current)?);
            judge(&current, &next)?;
            if !mutant("begin-late") {
                self.version.begin();
            }
            let published = self.cell.publish(&current, next);
            if mutant("begin-late") {
                self.version.begin();
            }
            self.version.complete();
            if published {
                return Ok(());
            }
        }
    }

    /// Replaces the snapshot unconditionally. Frees nothing.
    pub(crate) fn replace(&self, next: T) {
        self.version.begin();
        self.cell.replace(Shared::new(next));
        self.version.complete();
    }

    /// Frees the retired snapshots that no thread holds, on this thread.
    pub(crate) fn reclaim(&self) {
        self.retired().sweep();
    }

    /// The replaced snapshots.
    pub(crate) fn retired(&self) -> &Arc<RetireList<T>> {
        self.cell.retired()
    }
}

impl<T: fmt::Debug> fmt::Debug for SnapshotCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCell")
            .field("current", &*self.load())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
        thread::{self, ThreadId},
    };

    use super::*;
    use crate::testing::size;

    fn set<T>(cell: &SnapshotCell<T>, value: impl Fn() -> T) {
        let Ok(()) = cell.rcu(|_| Ok::<_, Infallible>(value()));
        cell.reclaim();
    }

    #[test]
    fn an_edit_that_fails_changes_nothing() {
        let cell = SnapshotCell::new(1);
        assert_eq!(cell.rcu(|_| Err("no")), Err("no"));
        assert_eq!(*cell.load(), 1);
        assert_eq!(cell.rcu(|n| Ok::<_, ()>(n + 1)), Ok(()));
        assert_eq!(*cell.load(), 2);
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
        assert_eq!((*cell.load(), runs), (11, 2));
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
        assert_eq!(Arc::strong_count(&inner), 2, "a drop must not free");
        cell.reclaim();
        assert_eq!(Arc::strong_count(&inner), 1);
    }

    #[test]
    fn more_guards_than_a_thread_has_slots_for() {
        const GUARDS: usize = size(100, 20);
        let cell = SnapshotCell::new(0);
        let guards: Vec<_> = (1..GUARDS)
            .map(|n| {
                let guard = cell.load();
                cell.replace(n);
                guard
            })
            .collect();
        assert!(guards.iter().map(|guard| **guard).eq(0..GUARDS - 1));
    }

    /// Records the thread that drops it.
    struct Tells<'a>(&'a Mutex<Vec<ThreadId>>);

    impl Drop for Tells<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
        }
    }

    #[test]
    fn only_writers_free() {
        const SNAPSHOTS: usize = size(2_000, 10);
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
