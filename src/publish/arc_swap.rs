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
