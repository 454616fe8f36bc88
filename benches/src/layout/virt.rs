//! QEMU's machine `virt` for aarch64.

use std::iter;

use busmap::Span;

use crate::layout::cursor::{Cursor, evenly};

/// The devices that the machine always has, from `hw/arm/virt.c`.
const FIXED: [(u64, u64); 9] = [
    // GIC distributor, ITS, redistributors.
    (0x800_0000, 0x1_0000),
    (0x808_0000, 0x2_0000),
    (0x80a_0000, 0xf6_0000),
    // UART, RTC, fw_cfg, GPIO, SMMU.
    (0x900_0000, 0x1000),
    (0x901_0000, 0x1000),
    (0x902_0000, 0x18),
    (0x903_0000, 0x1000),
    (0x905_0000, 0x2_0000),
    // PCI configuration space.
    (0x3f00_0000, 0x100_0000),
];

/// The windows of PCI devices below 4 GiB, and far above.
const LOW: u64 = 0x1000_0000;
const HIGH: u64 = 0x80_0000_0000;

/// The sizes of PCI devices' BARs in each window. The sequence repeats.
const LOW_BARS: [u64; 5] = [0x1000, 0x4000, 0x100, 0x8_0000, 0x20];
const HIGH_BARS: [u64; 5] = [0x4000, 0x1_0000, 0x1000, 0x1000_0000, 0x10_0000];

/// The first `n` of these: the fixed devices, 32 virtio-mmio devices, and any number of PCI devices.
pub(crate) fn virt(n: usize) -> Vec<Span> {
    let fixed = FIXED.map(|(first, len)| Cursor::at(first).take(len));
    let virtio_mmio = evenly(0xa00_0000, 0x200, 0x200, 32);
    let pci = bars(LOW, LOW_BARS).zip(bars(HIGH, HIGH_BARS));
    let pci = pci.flat_map(|(low, high)| [low, high]);
    fixed
        .into_iter()
        .chain(virtio_mmio)
        .chain(pci)
        .take(n)
        .collect()
}

fn bars(window: u64, sizes: [u64; 5]) -> impl Iterator<Item = Span> {
    let mut cursor = Cursor::at(window);
    let mut sizes = sizes.into_iter().cycle();
    iter::from_fn(move || {
        let size = sizes.next()?;
        Some(cursor.align(size).take(size))
    })
}
