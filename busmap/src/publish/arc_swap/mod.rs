//! The cell for hosted targets, on [`arc_swap::ArcSwap`].
//!
//! A load writes one word of a node that belongs to its thread. The first load on a thread may allocate that node. The
//! node is used again after the thread has ended, and is never freed. So the number of nodes, of 192 bytes each, is
//! about the maximum number of threads that had loaded and existed at once (`tests/churn.rs`). Each publication
//! inspects all nodes. `cargo bench -p benches --bench churn` shows both (a hot-add to 8 to 24 devices while the
//! threads sleep; 2 busy cores of a shared x86_64 machine; the slot cell's figures with `--features
//! axdevice/slot-cell`):
//!
//! | threads, in this order | alive at once | bytes left | hot-add p50, p99, max | the same on the slot cell |
//! |---|---|---|---|---|
//! | 1,000 | 1 | 192 | 0.7, 0.9, 49 µs | 0 bytes; 0.7, 0.8, 42 µs |
//! | 10,000 more | 1 | 0 more | 0.7, 0.9, 53 µs | 0 bytes; 0.7, 0.8, 99 µs |
//! | 10,000 more | 16 | 2,880 more | 0.9, 1.3, 71 µs | 0 bytes; 0.7, 1.0, 39 µs |
//! | 10,240 more | 256 | 46,080 more | 4.4, 9.7, 103 µs | 0 bytes; 0.8, 5.5, 6 µs |
//! | 10,000 more | 1 | 0 more | 4.3, 4.8, 138 µs | 0 bytes; 0.7, 0.8, 55 µs |
//!
//! A device is quiescent once every table that lists it is freed. This relies on one guarantee of arc-swap: `swap` and
//! `compare_and_swap` return an owned `Arc`, and each existing guard on it has a count of it. The guarantee follows
//! from their safety: the owner of the `Arc` may call `Arc::get_mut`, which detects guards by their counts alone. So no
//! guard protects a table that [`ArcRetireList`] finds without another count, and by the list's own invariant none will
//! again.
#![cfg_attr(
    not(test),
    expect(clippy::disallowed_types, reason = "this is where arc-swap is named")
)]

mod retire;

use core::ops::Deref;

use arc_swap::{ArcSwap, Guard};

pub(super) use self::retire::ArcRetireList;
use crate::sync::Arc;

/// See the [module](super).
pub(super) struct ArcSwapCell<T> {
    current: ArcSwap<T>,
    retired: Arc<ArcRetireList<T>>,
}

/// Protects a snapshot from being freed.
pub(crate) struct ArcSwapGuard<T>(Guard<Arc<T>>);

impl<T> Deref for ArcSwapGuard<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ArcSwapCell<T> {
    pub(super) fn new(snapshot: Arc<T>) -> Self {
        Self {
            current: ArcSwap::new(snapshot),
            retired: Arc::new(ArcRetireList::new()),
        }
    }

    /// The current snapshot, protected until the guard is dropped.
    #[inline]
    pub(super) fn load(&self) -> ArcSwapGuard<T> {
        ArcSwapGuard(self.current.load())
    }

    /// The current snapshot, with a count that the caller owns.
    pub(super) fn load_full(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Publishes `next` if `expected` is still current; returns whether it was.
    pub(super) fn publish(&self, expected: &ArcSwapGuard<T>, next: Arc<T>) -> bool {
        // While the guard exists, no other snapshot has the address of the expected one.
        let previous = self.current.compare_and_swap(&*expected.0, next);
        let published = Arc::ptr_eq(&previous, &expected.0);
        if published {
            // Every debt on it is paid by now, so the cell no longer gives it out.
            self.retired.push(Guard::into_inner(previous));
        }
        published
    }

    /// Publishes `next`, regardless of the current snapshot.
    pub(super) fn replace(&self, next: Arc<T>) {
        self.retired.push(self.current.swap(next));
    }

    /// The replaced snapshots.
    pub(super) fn retired(&self) -> &Arc<ArcRetireList<T>> {
        &self.retired
    }
}
