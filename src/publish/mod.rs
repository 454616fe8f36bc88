//! [`SnapshotCell`]: the one place that knows how snapshots are swapped.
//!
//! A cell holds the current snapshot, a `T` behind a count. Readers [`load`](SnapshotCell::load)
//! it, any number at once, without a lock. A writer [`rcu`](SnapshotCell::rcu)s it: copies, edits,
//! publishes. The replaced snapshot goes to the cell's retire list, from which writers
//! [`reclaim`](SnapshotCell::reclaim) what no reader holds any more.
//!
//! There are two kinds of cell: on hosted targets that of `arc_swap`; on bare metal, where there
//! are no thread-locals to rely on, that of `slots`, which the feature `slot-cell` selects elsewhere
//! too.
//!
//! # Guarantees
//!
//! - A load that happens after a publication gives that snapshot or a newer one. Publications have
//!   one total order.
//! - Loading a snapshot, and letting go of one, never frees it: the retire list holds a count until
//!   a writer finds itself the last holder. So a `T` is dropped on a writer's thread, or with the
//!   cell.
//! - Nothing of the cell is held while a `T` is dropped, so that its destructor may use the cell.
//! - Loads are lock-free. So are publications, but for the allocator.

use core::fmt;

#[cfg(not(any(target_os = "none", loom, feature = "slot-cell")))]
mod arc_swap;
mod hold;
#[cfg(any(test, target_os = "none", loom, feature = "slot-cell"))]
pub(crate) mod slots;

#[cfg(not(any(target_os = "none", loom, feature = "slot-cell")))]
mod chosen {
    pub(super) use crate::sync::Arc as Snapshot;

    pub(super) type Cell<T> = super::arc_swap::ArcSwapCell<T>;
    pub(crate) type Guard<'c, T> = super::arc_swap::ArcSwapGuard<T>;
    pub(crate) type RetireList<T> = super::arc_swap::RetireList<T>;
}
#[cfg(any(target_os = "none", loom, feature = "slot-cell"))]
mod chosen {
    pub(super) use super::slots::Snapshot;

    pub(super) type Cell<T> = super::slots::SlotCell<Snapshot<T>>;
    pub(crate) type Guard<'c, T> = super::slots::SlotGuard<'c, Snapshot<T>>;
    pub(crate) type RetireList<T> = super::slots::RetireList<Snapshot<T>>;
}

/// Protects a snapshot from being freed until it is dropped.
pub(crate) use self::chosen::Guard;
/// What a cell has replaced, which may outlive it.
pub(crate) use self::chosen::RetireList;
use self::hold::Version;
pub(crate) use self::hold::{Hold, NEVER};
use crate::sync::Arc;

/// The published snapshot. See the [module](self).
pub(crate) struct SnapshotCell<T> {
    cell: chosen::Cell<T>,
    version: Version,
}

impl<T> SnapshotCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            cell: chosen::Cell::new(chosen::Snapshot::new(value)),
            version: Version::first(),
        }
    }

    /// The current snapshot.
    #[inline]
    pub(crate) fn load(&self) -> Guard<'_, T> {
        self.cell.load()
    }

    /// Replaces the snapshot by what `edit` makes of it, or leaves it where `edit` fails. `edit`
    /// runs again when another publication came between. Frees nothing: see
    /// [`reclaim`](Self::reclaim).
    pub(crate) fn rcu<E>(&self, mut edit: impl FnMut(&T) -> Result<T, E>) -> Result<(), E> {
        loop {
            let current = self.load();
            let next = chosen::Snapshot::new(edit(&current)?);
            #[cfg(mutant = "rcu-unchecked")]
            {
                self.cell.replace(next);
                self.version.next();
                return Ok(());
            }
            #[cfg(not(mutant = "rcu-unchecked"))]
            if self.cell.publish(&current, next) {
                self.version.next();
                return Ok(());
            }
        }
    }

    /// Replaces the snapshot, whatever it is. Frees nothing either.
    pub(crate) fn replace(&self, next: T) {
        self.cell.replace(chosen::Snapshot::new(next));
        self.version.next();
    }

    /// Frees the retired snapshots that nobody holds, on this thread.
    pub(crate) fn reclaim(&self) {
        self.retired().sweep();
    }

    /// What was replaced.
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
        assert_eq!(Arc::strong_count(&inner), 2, "letting go must not free");
        cell.reclaim();
        assert_eq!(Arc::strong_count(&inner), 1);
    }

    #[test]
    fn more_guards_than_a_thread_has_slots_for() {
        const GUARDS: usize = if cfg!(miri) { 20 } else { 100 };
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

    /// Tells which thread dropped it.
    struct Tells<'a>(&'a Mutex<Vec<ThreadId>>);

    impl Drop for Tells<'_> {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(thread::current().id());
        }
    }

    #[test]
    fn only_writers_free() {
        const SNAPSHOTS: usize = if cfg!(miri) { 10 } else { 2_000 };
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
