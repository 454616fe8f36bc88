//! The registers of `arm_vgic::Vgic`, the GICv2 distributor.
//!
//! Offsets: Arm GIC architecture specification, GICv2, IHI 0048, "Distributor register map".

use axaddrspace::device::AccessWidth;

use super::{
    enter::Occupancy::Shared,
    guard::{
        Registers,
        Verdict::{self, Nothing, Pass},
    },
};

/// Forwards every register except GICD_ISENABLER16 to GICD_ISENABLER31: the device does not have these
/// interrupts, but looks up their state.
///
/// The device repeats its registers every 4 KiB, and does not access the host's hardware. It is `Sync`: its own
/// lock protects all its state (`vgic.rs:25`).
pub(crate) struct GicV2;

impl Registers for GicV2 {
    #[inline]
    fn read(&self, offset: usize, _: AccessWidth) -> Verdict {
        match offset & 0xfff {
            0x140..=0x17f => Nothing,
            _ => Pass(Shared),
        }
    }

    #[inline]
    fn write(&self, offset: usize, width: AccessWidth, _: usize) -> Verdict {
        self.read(offset, width)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::AccessWidth::{Byte, Dword};

    use super::*;

    #[test]
    fn interrupts_that_the_device_does_not_have_are_reserved_in_every_copy() {
        for copy in [0, 0x1000, 0xf000] {
            for (offset, verdict) in [
                (0x13c, Pass(Shared)),
                (0x13f, Pass(Shared)),
                (0x140, Nothing),
                (0x17c, Nothing),
                (0x17f, Nothing),
                (0x180, Pass(Shared)),
                (0, Pass(Shared)),
            ] {
                assert_eq!(GicV2.read(copy + offset, Dword), verdict, "{offset:#x}");
                assert_eq!(GicV2.write(copy + offset, Byte, 1), verdict, "{offset:#x}");
            }
        }
    }
}
