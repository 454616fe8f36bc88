//! The primitives of `core`.

pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(test))]
mod atomics {
    use core::sync::atomic::{self, Ordering};

    pub(crate) type AtomicPtr<T> = atomic::AtomicPtr<T>;
    pub(crate) type AtomicU64 = atomic::AtomicU64;
    pub(crate) type AtomicUsize = atomic::AtomicUsize;

    #[inline(always)]
    #[expect(clippy::disallowed_methods, reason = "this is where it is named")]
    pub(crate) fn fence(order: Ordering) {
        atomic::fence(order);
    }
}
#[cfg(not(test))]
pub(crate) use self::atomics::*;

#[cfg(test)]
pub(crate) use super::counting::*;

/// The ordering of the two accesses of a *store-buffering reader*: it writes `a`, then reads `b`, while a writer writes
/// `b`, executes a `SeqCst` fence, then reads `a`. The writer may be several threads, if its steps happen one before
/// the other.
///
/// `SeqCst`, so that at least one of the two sides sees the other's write. Assume that the reader's read `r` misses the
/// writer's write. That write comes before the fence `f`, so `r` precedes `f` in the single total order of `SeqCst`
/// operations. The reader's write `w` precedes `r`, because it comes first in program order. If the writer's read
/// missed `w` as well, `f` would precede `w`, and the order would be a cycle. (C++20, [atomics.order]/4, which is
/// Rust's model. A fence between `w` and `r` would suffice too. On x86 it costs a third of a load; these orderings cost
/// nothing, because `w` is a locked instruction.)
///
/// loom treats `SeqCst` accesses as `AcqRel`. There the ordering is `otherwise`, and [`reader_fence`] is a fence.
#[inline(always)]
pub(crate) const fn reader_seq_cst(_otherwise: Ordering) -> Ordering {
    Ordering::SeqCst
}

/// Comes between the two accesses of a store-buffering reader: see [`reader_seq_cst`].
#[inline(always)]
pub(crate) const fn reader_fence() {}

/// A point at which an interrupt could occur: for models only.
#[inline(always)]
pub(crate) const fn step() {}
