//! The contract between the devices and their guests: the address of each register, its value, and the accesses that
//! check it.

mod bars;
mod belts;
mod memory;
mod shapes;

pub use self::{bars::*, belts::*, memory::*, shapes::*};

/// The maximum number of vCPUs: each has its own registers in every device.
pub const MAX_VCPUS: u32 = 64;
/// The maximum number of hot-added devices.
pub const MAX_SLOTS: u32 = 16 * 1024;

/// Guest physical address of the registers in the MMIO latch, one for each vCPU, 4 bytes apart.
pub const MMIO_LATCH: u32 = 0xc000_0000;
/// A guest physical address that never has an owner.
pub const MMIO_UNMAPPED: u32 = 0xcfff_0000;
/// Guest physical address of slot 0.
pub const SLOTS: u32 = 0xd000_0000;
/// The distance from one slot to the next, as a shift.
pub const SLOT_SHIFT: u32 = 12;
/// The distance from one slot to the next, in bytes.
pub const SLOT_STRIDE: u32 = 1 << SLOT_SHIFT;
/// The size of the registers that each vCPU has in a slot's device.
pub const SLOT_BANK: u32 = 8;
/// In a bank: the device's id, read-only.
pub const SLOT_ID: u32 = 0;
/// In a bank: a register for the vCPU to write and read.
pub const SLOT_SCRATCH: u32 = 4;

/// The first port of the 16550 UART.
pub const UART: u16 = 0x3f8;
/// The UART's line status register.
pub const UART_LSR: u16 = UART + 5;
/// Line status: the transmitter can take another byte.
pub const LSR_READY: u8 = 0x20;
/// The first port of the registers in the port latch, one for each vCPU, 4 ports apart.
pub const PORT_LATCH: u16 = 0x1000;
/// The first port of the mailboxes.
pub const MAILBOX: u16 = 0x2000;
/// The distance from one vCPU's mailbox to the next.
pub const MAILBOX_BANK: u16 = 0x20;
/// The first of some ports that never have an owner.
pub const PORT_UNMAPPED: u16 = 0xf000;

/// In a mailbox (all registers are written with four bytes): values checked since the last report.
pub const CHECKS: u16 = 0x00;
/// Misses since the last report.
pub const MISSES: u16 = 0x04;
/// Wrong values since the last report.
pub const WRONG: u16 = 0x08;
/// Of the first wrong value: the address or port that was read.
pub const FIRST_ADDRESS: u16 = 0x0c;
/// Of the first wrong value: the value that was read.
pub const FIRST_GOT: u16 = 0x10;
/// Of the first wrong value: the expected value.
pub const FIRST_EXPECTED: u16 = 0x14;
/// Writes to the doorbell since the last report.
pub const RINGS: u16 = 0x1c;
/// Read with four bytes: the orders to the guest, [`HALT`] and [`MOVE`].
pub const ORDERS: u16 = 0x18;
/// Order: to halt.
pub const HALT: u32 = 1;
/// Order, read once: to move its device.
pub const MOVE: u32 = 2;

/// Four bytes at an address without an owner read as this. No id is this.
pub const FLOATING: u32 = u32::MAX;
/// The factor of [`id`].
pub const ID_FACTOR: u32 = 0x9e37_79b1;
/// The bits of an [`id`].
pub const ID_MASK: u32 = 0x7fff_ffff;
/// A vCPU's number times this makes its values differ from every other vCPU's.
pub const SALT: u32 = 0x0101_0101;
/// The [`pattern`] of the MMIO latch is made from this.
pub const MMIO_LATCH_SEED: u32 = 0x1234_5678;
/// The [`pattern`] of the port latch is made from this.
pub const PORT_LATCH_SEED: u32 = 0x8765_4321;

/// The id of the device in `slot`, different for each slot.
pub const fn id(slot: u32) -> u32 {
    (slot + 1).wrapping_mul(ID_FACTOR) & ID_MASK
}

/// The slot whose id is at `address`, in the bank of any vCPU.
pub const fn slot_of_id(address: u32) -> Option<u32> {
    if address < SLOTS || address % SLOT_BANK != SLOT_ID {
        return None;
    }
    Some((address - SLOTS) >> SLOT_SHIFT)
}

/// The value that `vcpu` leaves in its register of a device with this seed. The seed of a slot's device is its id.
pub const fn pattern(seed: u32, vcpu: u32) -> u32 {
    seed ^ (vcpu * SALT)
}

/// A guest reports once in this number of rounds.
pub const ROUNDS_PER_REPORT: u32 = 4;
/// A guest prints a line once in this number of rounds.
pub const ROUNDS_PER_LINE: u32 = 16;

/// The number of bytes of an access.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// One byte.
    Byte = 1,
    /// Two bytes.
    Word = 2,
    /// Four bytes.
    Dword = 4,
}

/// All widths of a guest's accesses.
pub const WIDTHS: [Width; 3] = [Width::Byte, Width::Word, Width::Dword];

/// An access to a register of four bytes that holds a pattern, `offset` bytes into it.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reads, and compares with the written value.
    Read(Width, u32),
    /// Writes these bytes of the pattern.
    Write(Width, u32),
    /// Writes these bytes of the pattern's complement.
    WriteInverse(Width, u32),
}

use Step::{Read, Write, WriteInverse};
use Width::{Byte, Dword, Word};

/// The accesses to a register: read the pattern left there, change it in pieces, and restore it.
pub const EXERCISE: [Step; 12] = [
    Read(Dword, 0),
    Read(Word, 2),
    Read(Byte, 1),
    WriteInverse(Dword, 0),
    Read(Dword, 0),
    Write(Byte, 1),
    Read(Dword, 0),
    Write(Word, 2),
    Read(Dword, 0),
    Read(Byte, 3),
    Write(Byte, 0),
    Read(Dword, 0),
];

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn all_ids_differ_and_none_floats() {
        let ids: std::collections::BTreeSet<_> = (0..MAX_SLOTS + 2).map(id).collect();
        assert_eq!(ids.len(), MAX_SLOTS as usize + 2);
        assert!(!ids.contains(&FLOATING));
    }

    #[test]
    fn an_exercise_leaves_the_pattern() {
        let pattern = 0x1234_5678_u32.to_le_bytes();
        let mut register = pattern;
        for step in EXERCISE {
            let (width, offset, source) = match step {
                Read(..) => continue,
                Write(width, offset) => (width, offset, pattern),
                WriteInverse(width, offset) => (width, offset, pattern.map(|byte| !byte)),
            };
            let bytes = offset as usize..offset as usize + width as usize;
            register[bytes.clone()].copy_from_slice(&source[bytes]);
        }
        assert_eq!(register, pattern);
    }
}
