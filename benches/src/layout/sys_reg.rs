//! Layouts of system registers.

use busmap::Span;
use rand::rngs::SmallRng;

use crate::layout::{
    Layout,
    cursor::evenly,
    scattered::{scattered, sizes},
};

const BASE: u64 = 0x30_0000;
const ROOM: u64 = 0x8_0000;

/// All layouts.
pub(crate) fn layouts(seed: u64) -> Vec<Layout> {
    vec![
        Layout::new("blocks", |n, _| evenly(BASE, 8, 16, n)),
        Layout::new("single registers", |n, _| evenly(BASE, 1, 2, n)),
        Layout::random(random_ranges, seed),
    ]
}

/// Devices of one to 64 registers, at random places.
fn random_ranges(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let sizes = sizes(64, n, rng);
    scattered(BASE, ROOM, &sizes, rng)
}
