//! Layouts of MMIO devices.

use busmap::Span;
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

use crate::layout::{
    Layout,
    cursor::{Cursor, evenly},
    virt::virt,
};

const PAGE: u64 = 0x1000;
const LARGE: u64 = 16 << 20;
const BASE: u64 = 0x1000_0000;

/// All layouts.
pub(crate) fn layouts(seed: u64) -> Vec<Layout> {
    vec![
        Layout::new("pages", pages),
        Layout::new("virtio-mmio", virtio_mmio),
        Layout::new("large", large).with_favourite(),
        Layout::new("redistributors", redistributors),
        Layout::new("odd", odd),
        Layout::new("powers of two", powers_of_two),
        Layout::random(random_ranges, seed),
        Layout::new("virt", |n, _| virt(n)),
    ]
}

/// One page each, at every other page.
fn pages(n: usize, _: &mut SmallRng) -> Vec<Span> {
    evenly(BASE, PAGE, 2 * PAGE, n)
}

/// 512 bytes each, side by side.
fn virtio_mmio(n: usize, _: &mut SmallRng) -> Vec<Span> {
    evenly(0xa00_0000, 0x200, 0x200, n)
}

/// One device of 16 MiB in the middle, and devices of one page around it.
fn large(n: usize, _: &mut SmallRng) -> Vec<Span> {
    let mut cursor = Cursor::at(BASE);
    let size = |i| if i == n / 2 { LARGE } else { PAGE };
    (0..n).map(|i| cursor.skip(PAGE).take(size(i))).collect()
}

/// 128 KiB each, side by side.
fn redistributors(n: usize, _: &mut SmallRng) -> Vec<Span> {
    evenly(0x80a_0000, 0x2_0000, 0x2_0000, n)
}

/// Odd sizes at odd addresses.
fn odd(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let mut cursor = Cursor::at(BASE);
    let mut odd = |from| 2 * rng.random_range(from..PAGE) + 1;
    // An odd gap leads from an even address to an odd one, and an odd size back to an even one.
    (0..n).map(|_| cursor.skip(odd(0)).take(odd(2))).collect()
}

/// Powers of two from 256 bytes to 2 MiB, aligned, in any order.
fn powers_of_two(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let mut sizes: Vec<_> = (0..n).map(|i| 0x100 << (i % 14)).collect();
    sizes.shuffle(rng);
    let mut cursor = Cursor::at(BASE);
    sizes
        .into_iter()
        .map(|size| cursor.align(size).take(size))
        .collect()
}

/// Sizes from four bytes to 2 MiB, and gaps from none to 1 GiB: each order of magnitude equally often.
fn random_ranges(n: usize, rng: &mut SmallRng) -> Vec<Span> {
    let mut below = |magnitude| {
        let most = 1_u64 << rng.random_range(magnitude);
        rng.random_range(0..most)
    };
    let mut cursor = Cursor::at(BASE);
    let mut spans: Vec<_> = (0..n)
        .map(|_| cursor.skip(below(0..=30)).take(4 + below(0..=21)))
        .collect();
    spans.shuffle(rng);
    spans
}
