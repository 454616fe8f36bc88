//! Exits of other shapes: accesses that cross a page, and string I/O.
//!
//! An access of 4 bytes that crosses a page exits in two pieces of 1 to 3 bytes. String input exits with all of its
//! items in one buffer, which looks like one wide access, or is longer than any access.

use super::Width;

/// The size of a page, in bytes.
pub const PAGE: u32 = 0x1000;
/// Guest physical address of the first page of two with a register across their border.
const CROSSINGS: u32 = 0xc080_0000;
/// The [`pattern`](super::pattern) of that register is made from this.
pub const CROSSING_SEED: u32 = 0x1357_9bdf;

/// The address of `vcpu`'s register of four bytes, of which one, two or three are on the first page.
pub const fn crossing(vcpu: u32) -> u32 {
    CROSSINGS + 2 * PAGE * vcpu + PAGE - 1 - vcpu % 3
}

/// The first port of the queues, four ports for each vCPU. A queue returns the written bytes in order.
pub const QUEUE: u16 = 0x3000;
/// The distance from one vCPU's queue to the next.
pub const QUEUE_BANK: u16 = 4;
/// The capacity of a queue, in bytes.
pub const QUEUE_SIZE: usize = 16;
/// The first four bytes that are sent through a queue are the [`pattern`](super::pattern) of this.
pub const QUEUE_SEED: u32 = 0xfdb9_7531;
/// The number of bits by which four bytes are rotated left to make the next four.
pub const QUEUE_TURN: u32 = 5;

/// The strings that are sent through a queue and read back: the width and the number of their items. 4 and 8 bytes
/// look like one access each; no access has 5 or 16.
pub const STRINGS: [(Width, u32); 5] = [
    (Width::Byte, 4),
    (Width::Byte, 5),
    (Width::Word, 3),
    (Width::Dword, 2),
    (Width::Dword, 4),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::MAX_VCPUS;

    #[test]
    fn each_register_crosses_its_own_border() {
        for vcpu in 0..MAX_VCPUS {
            let first = crossing(vcpu);
            assert_eq!(first / PAGE + 1, (first + 3) / PAGE);
            assert!(vcpu == 0 || crossing(vcpu - 1) / PAGE + 1 < first / PAGE);
        }
    }

    #[test]
    fn a_string_fits_into_a_queue() {
        for (width, items) in STRINGS {
            assert!(width as usize * items as usize <= QUEUE_SIZE);
        }
    }
}
