//! Every eighth offset of a device, read and written with each width.

use core::ops::Range;

use crate::{Width, arch, mailbox};

const STEP: usize = 8;

/// Of the offsets without registers, one in this number is visited, except in a complete sweep.
const RESERVED: usize = 257;

/// Visits the device at `base`, with registers at `registers`, and writes `value(offset)` at each offset. Returns the
/// number of accesses, except reads that gave more than their width.
pub(crate) fn sweep(
    base: usize,
    length: usize,
    registers: &[Range<usize>],
    value: fn(usize) -> u64,
) -> usize {
    let is_whole = mailbox::is_whole();
    let is_visited = |offset: &usize| {
        is_whole
            || offset.is_multiple_of(STEP * RESERVED)
            || registers.iter().any(|some| some.contains(offset))
    };
    let visit = |offset| {
        let accesses = Width::ALL.map(|width| {
            let read = arch::read(base + offset, width);
            arch::write(base + offset, width, value(offset));
            1 + usize::from(read & !width.mask() == 0)
        });
        accesses.iter().sum::<usize>()
    };
    let offsets = (0..length).step_by(STEP);
    offsets.filter(is_visited).map(visit).sum()
}
