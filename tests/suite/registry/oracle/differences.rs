//! The intended differences of ours from 0.4.10: one function for each, and no other functions.

use ax_errno::AxError;
use axaddrspace::device::AccessWidth;

use super::operations::places;
use support::{Bus, carried, extent};

/// Whether ours accepts these ranges. 0.4.10 accepts all: of two overlapping ranges the first added wins, and an empty
/// one owns nothing. Ours refuses both, so the oracle does not get them.
pub(super) fn is_taken<R: Bus>(ranges: &[R]) -> bool {
    // Each bus has a few hundred addresses here, which can be counted one by one.
    let owned = |range: &R| {
        places::<R>()
            .filter(|&at| range.contains(R::at(at)))
            .count()
    };
    let sum: usize = ranges.iter().map(owned).sum();
    let union = places::<R>().filter(|&at| ranges.iter().any(|r| r.contains(R::at(at))));
    ranges.iter().all(|range| owned(range) > 0) && sum == union.count()
}

/// Whether the access lies wholly in its owner's range. 0.4.10 passes it to the owner of its first byte, ours to no
/// device, so the oracle does not get it. System register accesses have no extent.
pub(super) fn is_whole<R: Bus>(range: R, at: usize, width: AccessWidth) -> bool {
    let last = at.checked_add(extent::<R>(width) - 1);
    last.is_some_and(|last| last <= R::HIGHEST && range.contains(R::at(last)))
}

/// The part of a value that passes the bus. 0.4.10 passes all of it, both ways; ours masks it to the width of
/// the access, except on the system register bus, which has none.
pub(super) fn passed<R: Bus>(value: usize, width: AccessWidth) -> usize {
    carried::<R>(value, width)
}

/// The result of a miss with ours, under the policy of this test. 0.4.10 panics, so this test calls its `find_*`
/// instead, which must find nothing.
pub(super) const MISSED: AxError = AxError::NotFound;
