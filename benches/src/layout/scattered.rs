//! Devices at random places in a part of a bus.

use busmap::Span;
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

use crate::layout::cursor::Cursor;

/// Devices of these sizes at random places in the `room` addresses from `first` on, in random order.
///
/// # Panics
///
/// If the devices do not fit.
pub(crate) fn scattered(first: u64, room: u64, sizes: &[u64], rng: &mut SmallRng) -> Vec<Span> {
    let free = room.checked_sub(sizes.iter().sum());
    let free = free.expect("there is room for all");
    // The number of unused addresses below each device.
    let mut unused: Vec<_> = sizes.iter().map(|_| rng.random_range(0..=free)).collect();
    unused.sort_unstable();
    let mut cursor = Cursor::at(first);
    let mut so_far = 0;
    let place = |(&size, unused): (&u64, u64)| {
        cursor.skip(unused - so_far);
        so_far = unused;
        cursor.take(size)
    };
    let mut spans: Vec<_> = sizes.iter().zip(unused).map(place).collect();
    spans.shuffle(rng);
    spans
}

/// `n` sizes from one to `most`.
pub(crate) fn sizes(most: u64, n: usize, rng: &mut SmallRng) -> Vec<u64> {
    (0..n).map(|_| rng.random_range(1..=most)).collect()
}
