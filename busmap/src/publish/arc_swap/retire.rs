//! [`ArcRetireList`]: replaced snapshots, until no thread holds them.

use crate::{
    stack::{Chain, Node, Stack},
    sync::Arc,
};

/// Snapshots that were replaced, each with a count, so that a reader is never the last holder.
///
/// # Invariants
///
/// *Retired*: the cell no longer gives out the snapshots on the list, so only a thread that has a count of one makes a
/// new count of it.
pub(crate) struct ArcRetireList<T>(Stack<Arc<T>>);

impl<T> ArcRetireList<T> {
    pub(super) fn new() -> Self {
        Self(Stack::new())
    }

    /// Adds a snapshot that the cell no longer gives out.
    pub(super) fn push(&self, snapshot: Arc<T>) {
        self.0.push(Node::new(snapshot));
    }

    /// Frees, on this thread, every snapshot on the list that has no other count.
    ///
    /// Held snapshots are back on the list before anything is dropped. So destructors may push and sweep, and a
    /// destructor that unwinds loses no snapshot.
    pub(crate) fn sweep(&self) {
        let (mut free, mut held) = (Chain::EMPTY, Chain::EMPTY);
        for mut node in self.0.take() {
            // By *Retired*, if this is the only count, no other thread makes a new one. `get_mut` acquires what the
            // other holders released when they dropped their counts.
            if Arc::get_mut(&mut node.value).is_some() {
                free.push(node);
            } else {
                held.push(node);
            }
        }
        self.0.push_all(held);
        drop(free);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[test]
    fn frees_snapshots_without_holders_and_keeps_the_rest() {
        let list = ArcRetireList::new();
        let snapshots: Vec<_> = (0..4).map(Arc::new).collect();
        let address = Arc::as_ptr(&snapshots[1]);
        let held = snapshots[1].clone();
        snapshots.into_iter().for_each(|s| list.push(s));
        list.sweep();
        let left: Vec<_> = list.0.take().map(|n| Arc::as_ptr(&n.value)).collect();
        assert_eq!(left, [address]);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn keeps_a_held_value_until_a_later_sweep() {
        let list = ArcRetireList::new();
        let inner = Arc::new(());
        let held = Arc::new(inner.clone());
        list.push(held.clone());
        list.sweep();
        assert_eq!(Arc::strong_count(&inner), 2);
        drop(held);
        assert_eq!(Arc::strong_count(&inner), 2, "a reader must not free");
        list.sweep();
        assert_eq!(Arc::strong_count(&inner), 1);
    }

    /// When it is dropped, retires another of its kind, `left` times in total.
    struct Retires {
        list: Weak<ArcRetireList<Retires>>,
        drops: Arc<AtomicUsize>,
        left: usize,
    }

    impl Drop for Retires {
        fn drop(&mut self) {
            self.drops.fetch_add(1, Relaxed);
            let list = self.list.upgrade().filter(|_| self.left > 0);
            if let Some(list) = list {
                list.push(Arc::new(Retires {
                    list: self.list.clone(),
                    drops: self.drops.clone(),
                    left: self.left - 1,
                }));
                list.sweep();
            }
        }
    }

    #[test]
    fn destructors_may_push_and_sweep() {
        let drops = Arc::new(AtomicUsize::new(0));
        let list = Arc::new(ArcRetireList::new());
        list.push(Arc::new(Retires {
            list: Arc::downgrade(&list),
            drops: drops.clone(),
            left: 12,
        }));
        list.sweep();
        assert_eq!(drops.load(Relaxed), 13);
        assert!(list.0.take().next().is_none());
    }
}
