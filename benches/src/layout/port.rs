//! Layouts of ports.

use busmap::Span;
use rand::{RngExt, rngs::SmallRng};

use crate::layout::{
    Layout,
    cursor::{Cursor, evenly},
    scattered::{scattered, sizes},
};

const BASE: u64 = 0x100;
/// A few ports at the end stay unused.
const ROOM: u64 = 0xf000 - BASE;

/// The largest number of ports of a device.
const MOST: u64 = 16;

/// All layouts.
pub(crate) fn layouts(seed: u64) -> Vec<Layout> {
    vec![
        Layout::new("blocks", |n, _| evenly(BASE, 4, 8, n)),
        Layout::new("sizes of 1 to 16", mixed),
        Layout::random(random_ranges, seed),
    ]
}

/// Devices of one to sixteen ports, with small gaps.
fn mixed(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let mut cursor = Cursor::at(BASE);
    let sizes = sizes(MOST, n, rng);
    let mut gap = || rng.random_range(0..4);
    sizes
        .into_iter()
        .map(|size| cursor.skip(gap()).take(size))
        .collect()
}

/// Devices of one to sixteen ports, at random places.
fn random_ranges(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let sizes = sizes(MOST, n, rng);
    scattered(BASE, ROOM, &sizes, rng)
}
