//! A register of four bytes, read and written in pieces.

use core::sync::atomic::{AtomicU32, Ordering};

use axaddrspace::device::AccessWidth;

/// A register of four bytes that *one* vCPU writes, so that a write in pieces need not be atomic.
///
/// It publishes nothing (`Relaxed`).
#[derive(Debug, Default)]
pub struct Register(AtomicU32);

impl Register {
    /// The bytes from `offset` on. The registry masks them to the width of the access.
    pub fn read(&self, offset: u32) -> usize {
        (self.0.load(Ordering::Relaxed) >> (8 * offset)) as usize
    }

    /// Changes the bytes from `offset` on.
    pub fn write(&self, offset: u32, width: AccessWidth, val: usize) {
        let mask = match width {
            AccessWidth::Byte => 0xff,
            AccessWidth::Word => 0xffff,
            AccessWidth::Dword | AccessWidth::Qword => u32::MAX,
        };
        let (mask, val) = (mask << (8 * offset), (val as u32) << (8 * offset));
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(old & !mask | val & mask, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_changed_alone() {
        let register = Register::default();
        register.write(0, AccessWidth::Dword, 0x1122_3344);
        register.write(1, AccessWidth::Byte, 0xaa);
        register.write(2, AccessWidth::Word, 0xbbcc);
        assert_eq!(register.read(0), 0xbbcc_aa44);
        assert_eq!(register.read(3), 0xbb);
    }
}
